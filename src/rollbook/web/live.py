"""What has changed, for pages that are looked at: as events that a browser listens to.

The home is watched once, whoever listens.  A page that is told of a change asks for itself again, so
an event says no more than what it was about.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator

import msgspec

from rollbook.errors import RollbookError
from rollbook.model.outcome import WatchUpdate
from rollbook.runtime import StateRuntime
from rollbook.web.log_rows import last_row_id
from rollbook.web.parameters import LogsOf

_log = logging.getLogger(__name__)
_LOGS_S = 0.5  # between two looks at the logs, while somebody follows them
_KEEP_ALIVE_S = 15.0
_MOST_IDS = 500  # that one event names; of more, everything is said to have changed


class _Listener:
    """What one page hasn't been told yet."""

    def __init__(self, logs: LogsOf | None) -> None:
        self.logs = logs
        self.threads: set[str] = set()
        self.is_everything = False
        self.has_logs = False
        self.wake = asyncio.Event()

    def take(self, version: int) -> str:
        """Write what there is to tell, which is told then."""
        events = ""
        if self.threads or self.is_everything:
            ids = sorted(self.threads) if not self.is_everything else None
            data = msgspec.json.encode(ids).decode()
            events += f"id: {version}\nevent: threads\ndata: {data}\n\n"
        if self.has_logs:
            events += "event: logs\ndata: \n\n"
        self.threads, self.is_everything, self.has_logs = set(), False, False
        self.wake.clear()
        return events


class Live:
    """Watches a home, and its logs as long as somebody follows them.

    ``version`` is another one after each change; whoever has seen the latest has missed none.
    :meth:`run` goes on until :meth:`stop`, which may be called from any thread or signal handler.
    """

    def __init__(self, state: StateRuntime) -> None:
        self.version = secrets.randbits(32)  # so that it isn't that of a server before
        self._state = state
        self._listeners: set[_Listener] = set()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Watch until the end."""
        self._loop = asyncio.get_running_loop()
        watching = threading.Thread(target=self._watch, name="rollbook-serve-watch")
        watching.start()
        try:
            await self._look_at_logs()
        finally:
            self.stop()
            await asyncio.to_thread(watching.join)

    def stop(self) -> None:
        """End it, and what pages listen to."""
        self._stop.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_all)

    async def events(self, seen: str, logs: LogsOf | None) -> AsyncIterator[str]:
        """Give the events for a page that has seen a version, with those of logs if wanted."""
        listener = _Listener(logs)
        if seen != str(self.version):
            listener.is_everything = True
            listener.wake.set()
        self._listeners.add(listener)
        try:
            yield "retry: 2000\n\n"
            while not self._stop.is_set():
                try:
                    await asyncio.wait_for(listener.wake.wait(), _KEEP_ALIVE_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                yield listener.take(self.version)
        finally:
            self._listeners.discard(listener)

    def _watch(self) -> None:
        try:
            for update in self._state.watch(stop=self._stop):
                if self._loop is not None and not self._stop.is_set():
                    self._loop.call_soon_threadsafe(self._tell, update)
        except RollbookError as error:
            _log.warning("pages don't change by themselves any more: %s", error)

    def _tell(self, update: WatchUpdate) -> None:
        ids = update.changed + update.removed
        if not ids and not update.hosts:
            return
        self.version += 1
        for listener in self._listeners:
            listener.threads.update(ids)
            is_much = not ids or len(listener.threads) > _MOST_IDS
            listener.is_everything = listener.is_everything or is_much
            listener.wake.set()

    async def _look_at_logs(self) -> None:
        last_ids: dict[LogsOf, int] = {}
        while not self._stop.is_set():
            await asyncio.sleep(_LOGS_S)
            followed = {each.logs for each in self._listeners if each.logs is not None}
            last_ids = {logs: last_id for logs, last_id in last_ids.items() if logs in followed}
            for logs in followed:
                try:
                    now = await asyncio.to_thread(last_row_id, self._state, logs)
                except RollbookError as error:
                    _log.warning("the logs can't be followed: %s", error)
                    continue
                if now != last_ids.get(logs):  # at first, too: rows may have come since the page
                    self._tell_of_logs(logs)
                last_ids[logs] = now

    def _tell_of_logs(self, logs: LogsOf) -> None:
        for listener in self._listeners:
            if listener.logs is logs:
                listener.has_logs = True
                listener.wake.set()

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.wake.set()
