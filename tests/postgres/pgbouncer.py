"""A real PgBouncer, from Debian's package, unpacked into ``build/`` without root.

Run it as a program to fetch it.  Where it can't be had, the tests that need it are skipped.
"""

import atexit
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psycopg

from tests.postgres.server import Server, as_nobody, free_port

BUILT = Path(__file__).parents[2] / "build" / "pgbouncer"
# Releases of Debian differ in what they call the last.
_PACKAGES = ("pgbouncer", "libevent-2.1-7", "libc-ares2", "libcares2")
_STARTS_WITHIN_S = 30.0


def fetch() -> None:
    """Fetch and unpack the package, and what it needs, as far as they are to be had."""
    BUILT.mkdir(parents=True, exist_ok=True)
    lists = BUILT / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    private = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={BUILT}", "-oAPT::Sandbox::User=root"]
    for package in _PACKAGES:
        if not _run("apt-get", "download", package) and not _run(
            "apt-get", *private, "download", package
        ):
            _run("apt-get", *private, "update")
            _run("apt-get", *private, "download", package)
    for archive in BUILT.glob("*.deb"):
        _run("dpkg-deb", "-x", str(archive), str(BUILT))


def _run(*command: str) -> bool:
    try:
        done = subprocess.run(command, cwd=BUILT, capture_output=True, check=False, timeout=120)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def program() -> Path | None:
    """Where it is; None where it isn't, or its libraries aren't."""
    found = BUILT / "usr" / "sbin" / "pgbouncer"
    try:
        subprocess.run([found, "--version"], env=_environment(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found


def _environment() -> dict[str, str]:
    libraries = BUILT / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


class PgBouncer:
    """One that lends sessions of a server, each for a transaction."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.port = free_port()
        self._config = directory / f"pgbouncer-{self.port}.ini"
        self._log = directory / f"pgbouncer-{self.port}.log"
        self._config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = any\n"
            f"listen_port = {self.port}\npool_mode = transaction\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        self._config.chmod(0o644)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    @classmethod
    def start(cls, server: Server) -> Self:
        """Start one in front of a server, and wait until it answers."""
        bouncer = cls(server.directory, server)
        bouncer.run()
        return bouncer

    def run(self) -> None:
        """Start it."""
        binary = program()
        assert binary is not None
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [binary, self._config],
                stdout=output,
                stderr=output,
                env=_environment(),
                **as_nobody(),
            )
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                psycopg.connect(self.url_of("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self._log.read_text()[-2000:]) from None
                time.sleep(0.01)
            else:
                return

    def url_of(self, database: str) -> str:
        """The address of a database behind it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """End it."""
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


if __name__ == "__main__":
    fetch()
    sys.stdout.write(f"{program() or 'PgBouncer can not be had here'}\n")
