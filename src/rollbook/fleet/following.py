"""Follow what other hosts change: as the server tells of it, or by looking every now and then."""

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from rollbook.errors import DatabaseError
from rollbook.model.outcome import WatchUpdate
from rollbook.store import shared
from rollbook.store.postgres import PostgresEngine

_LOOK_S = 1.0  # between two looks at what has changed, where nobody tells
_LISTEN_S = 0.2  # for a message, before a look at whether to end
_CHECK_S = 30.0  # the same, where somebody does: what is told can be lost
_RETRY_S = 2.0
_PROBE_S = 1.0  # for a message of one's own to arrive
_log = logging.getLogger(__name__)


class _Message(msgspec.Struct, frozen=True):
    """What a host tells: that it has changed, and which threads, unless these are too many."""

    host: str
    threads: list[str] | None = None


class Following:
    """Tells of what other hosts than ``own_host`` change, until ``stop`` is set.

    ``is_told`` says whether the server tells of changes; behind a proxy that lends a session to one
    after the other, such as PgBouncer's transaction mode, it can't.
    """

    def __init__(
        self,
        engine: PostgresEngine,
        own_host: Callable[[], str],
        tell: Callable[[WatchUpdate], None],
        stop: threading.Event,
    ) -> None:
        self._engine = engine
        self._own_host = own_host
        self._tell = tell
        self._stop = stop
        self._versions: dict[str, int] | None = None
        self.is_told = False

    def run(self) -> None:
        """Follow; a server that is away is waited for."""
        while not self._stop.is_set():
            try:
                self._look()
                self._listen()
            except DatabaseError as error:
                _log.info("what others change isn't followed now: %s", error.message)
                self._stop.wait(_RETRY_S)

    def _listen(self) -> None:
        """Take what is told; only look, where nothing is."""
        with self._engine.listening(shared.CHANNEL) as listener:
            self.is_told = not self._engine.is_pooled and listener.hears(_PROBE_S)
            look_at = 0.0
            while not self._stop.is_set():
                if not self.is_told:
                    self._look()
                    self._stop.wait(_LOOK_S)
                    continue
                for payload in listener.messages(_LISTEN_S):
                    self._take(payload)
                if time.monotonic() >= look_at:
                    self._look()
                    look_at = time.monotonic() + _CHECK_S

    def _take(self, payload: str) -> None:
        try:
            message = msgspec.json.decode(payload, type=_Message)
        except msgspec.MsgspecError:
            return  # somebody else's, or our own, to see whether it arrives
        if message.host != self._own_host():
            if self._versions is not None:
                self._versions[message.host] = self._versions.get(message.host, 0) + 1
            changed = tuple(message.threads or ())
            self._tell(WatchUpdate(changed=changed, hosts=(message.host,)))

    def _look(self) -> None:
        """Compare how often hosts have changed with what was seen."""
        with self._engine.read() as tx:
            now = shared.versions(tx)
        before, self._versions = self._versions, now
        if before is None:
            return
        own = self._own_host()
        hosts = sorted(
            host for host, version in now.items() if host != own and version > before.get(host, 0)
        )
        if hosts:
            self._tell(WatchUpdate(hosts=tuple(hosts)))
