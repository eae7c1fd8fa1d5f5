"""A real Codex, asked over the standard streams of its ``app-server``."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

_CLIENT = {"name": "rollbook_tests", "title": "Rollbook's tests", "version": "0"}
_OFFLINE = "http://127.0.0.1:9/v1"
_CONFIG = (
    'model="gpt-5.2-codex"',
    'model_provider="mock"',
    f'model_providers.mock={{name="mock",base_url="{_OFFLINE}",wire_api="responses"}}',
    "check_for_update_on_startup=false",
    "analytics.enabled=false",
    "features.plugins=false",
)


class AppServerError(Exception):
    """An error that Codex answered, or no answer at all."""


class AppServer:
    """One ``codex app-server`` on a home, from ``with`` until its end."""

    def __init__(
        self,
        executable: Path,
        home: Path,
        *,
        config: tuple[str, ...] = (),
        environment: Mapping[str, str] = {},
        timeout_s: float = 30.0,
    ) -> None:
        self._command = [str(executable), "app-server"]
        for setting in (*_CONFIG, *config):
            self._command += ["-c", setting]
        self.environment = home_environment(home) | dict(environment)
        self._home = home
        self._timeout_s = timeout_s
        self._last_id = 0
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._complaints: list[str] = []
        self.notifications: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._home,
            env=self.environment,
            encoding="utf-8",
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_complaints, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.request(
                "initialize",
                {"clientInfo": _CLIENT, "capabilities": {"experimentalApi": True}},
            )
            self._send({"method": "initialized"})
        except BaseException:
            self._terminate()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._terminate()

    @property
    def stderr(self) -> str:
        """What the process has written to its standard error so far."""
        return "".join(self._complaints)

    def request(self, method: str, params: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Ask, and wait for the answer to this question."""
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self._next_message(method)
            if message.get("id") != self._last_id or "method" in message:
                self.notifications.append(message)
            elif "error" in message:
                raise AppServerError(f"{method}: {message['error']['message']}")
            else:
                return message["result"]

    def notification(self, method: str) -> dict[str, Any]:
        """Wait for a notification of this kind; takes it and those before it."""
        while True:
            while self.notifications:
                message = self.notifications.pop(0)
                if message.get("method") == method:
                    return message["params"]
            self.notifications.append(self._next_message(method))

    def _send(self, message: Mapping[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._ended(message["method"]) from None

    def _next_message(self, method: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._timeout_s)
        except queue.Empty:
            raise self._silence(f"{method}: no answer in {self._timeout_s} s") from None
        if not line:
            raise self._ended(method)
        return json.loads(line)

    def _ended(self, method: str) -> AppServerError:
        self._terminate()
        return self._silence(f"{method}: codex has ended with {self._process.returncode}")

    def _silence(self, message: str) -> AppServerError:
        return AppServerError(f"{message}; it wrote:\n{self.stderr}")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._complaints.extend(lines)

    def _terminate(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for reader in self._readers:
            reader.join(self._timeout_s)


def home_environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "TZ", "LANG") if name in os.environ}
    return kept | {"CODEX_HOME": str(home), "HOME": str(home), "OPENAI_BASE_URL": _OFFLINE}
