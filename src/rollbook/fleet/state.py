"""What this machine has to do with what many hosts share: when it sends, and whether it can read."""

import logging
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import msgspec

from rollbook.content.database import ContentDatabase
from rollbook.errors import DatabaseError, DatabaseUnavailableError, DatabaseUnwritableError
from rollbook.fleet.delivery import Delivery
from rollbook.fleet.following import Following
from rollbook.fleet.host import machine, machine_identity, wanted_name
from rollbook.fleet.reading import SharedSource
from rollbook.fleet.replica import Reads
from rollbook.forks import renew_after_fork, started
from rollbook.index.home import HomeIndex
from rollbook.logs.database import LogDatabase
from rollbook.model.outcome import WatchUpdate
from rollbook.store import shared
from rollbook.store.engine import SHARED, Transaction
from rollbook.store.postgres import PostgresEngine
from rollbook.telemetry import ERRORS, count

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0  # between two attempts to reach a server that is away
_READER_PATIENCE_S = 10.0  # of whoever has nothing but the server to read from
_READER_PAUSE_S = 0.2
_LAST_CHANCE_S = 5.0  # to send what is left when all is closed
_FIND_NAME_EVERY_S = 5.0
_MOST_WANTED = 10_000  # threads; of more, all are compared
_log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """What a server has of a home: under which name, of how many threads, and since when.

    ``delivered_at`` is when all of it was last compared (epoch seconds); None where it never was.
    """

    location: str
    host: str
    threads: int
    delivered_at: int | None
    is_shared: bool


def look_at(address: str, home: Path) -> Seen:
    """Look at what a server has of a home; nothing is made there.

    Errors: UsageError for what is no address; DatabaseUnavailableError, DatabaseError.
    """
    engine = PostgresEngine.open(address, SHARED, migrates=False)
    try:
        with engine.read() as tx:
            homes = shared.homes_of(tx, machine_identity())
            host = next((name for name, place in homes.items() if place == str(home)), None)
            threads = 0 if host is None else len(shared.digests(tx, host))
            delivered_at = None if host is None else shared.delivered_at(tx, host)
    finally:
        engine.close()
    return Seen(engine.location, host or "", threads, delivered_at, host is not None)


class Stop(Protocol):
    """What ends a watch."""

    def end(self) -> None:
        """End it."""


class _Wanted:
    """What is to be sent: soon, as whoever reads here waits for it, or when there is time."""

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.annotations = False
        self.logs = False
        self.is_all = False  # later
        self.items: set[str] = set()  # later
        self.all_items = False  # later

    @property
    def has_urgent(self) -> bool:
        """Whether anything is wanted soon."""
        return bool(self.threads) or self.annotations or self.logs

    @property
    def has_any(self) -> bool:
        """Whether anything is wanted."""
        return self.has_urgent or self.is_all or self.all_items or bool(self.items)

    def take_urgent(self) -> "_Wanted":
        """Take out what is wanted soon."""
        taken = _Wanted()
        taken.threads, taken.annotations, taken.logs = self.threads, self.annotations, self.logs
        self.threads, self.annotations, self.logs = set(), False, False
        return taken

    def add(self, other: "_Wanted") -> None:
        """Want what another one wants, too; of very many threads, all."""
        self.threads |= other.threads
        self.items |= other.items
        self.is_all = self.is_all or other.is_all or len(self.threads) > _MOST_WANTED
        self.all_items = self.all_items or other.all_items or len(self.items) > _MOST_WANTED
        if len(self.threads) > _MOST_WANTED:
            self.threads = set()
        if self.all_items:
            self.items = set()
        self.annotations = self.annotations or other.annotations
        self.logs = self.logs or other.logs


class SharedState:
    """One home's part in what hosts share.

    What is written goes into the home's own databases first, and is sent from there: at once, if the
    server can be reached, else when it can be again.  What is to be sent need not be remembered for
    that, as it is found by comparing.
    """

    def __init__(
        self,
        address: str,
        read_address: str | None,
        host: str | None,
        index: HomeIndex,
        content: ContentDatabase,
        logs: LogDatabase,
        *,
        has_home: bool,
    ) -> None:
        self._engine = PostgresEngine.open(address, SHARED)
        replica = PostgresEngine.open(read_address, SHARED) if read_address else None
        self.reads = Reads(self._engine, replica)
        self._given_name = wanted_name(host)
        self._machine = machine_identity()
        self._index = index
        self._content = content
        self._logs = logs
        self._has_home = has_home
        self._source = SharedSource(self.reads, index.annotations)
        self._delivery: Delivery | None = None
        self._is_sharing = False  # or has been, in another process
        self._is_refused = False  # as whoever asks may only read
        self._find_name_at = 0.0
        self._sent_log_id = -1
        self._sent_annotations = (-1, -1)  # as of no file
        self._try_at = 0.0  # again, to reach a server that is away
        self._pause_s = _FIRST_PAUSE_S
        self.why_away = ""
        index.annotations.host = self._given_name if self._given_name is not None else machine()
        self._renew()
        renew_after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._sending = threading.Lock()  # what is wanted soon
        self._sending_rest = threading.Lock()
        self._wanted = _Wanted()
        self._wakes = threading.Event()
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def engine(self) -> PostgresEngine:
        """The database that is written."""
        return self._engine

    @property
    def host(self) -> str:
        """What this machine and home are called; not certain before the server was reached."""
        return self._index.annotations.host

    @property
    def location(self) -> str:
        """Where the database is, without what is secret."""
        return self._engine.location

    def source(self, *, logs: bool = False) -> SharedSource | None:
        """Give what can be read now, with all that was written here; None while that is away.

        That is what this state has written; ``logs``: and what others of this home have logged.
        """
        if self.why_away:
            return None
        try:
            if logs and self._delivery is None:
                self._find_name()
            if logs and self._is_sharing and self._logs.last_id() != self._sent_log_id:
                self._want((), items=False, annotations=False, logs=True)
            if self._is_sharing and self._index.annotations.file.look() != self._sent_annotations:
                self._want((), items=False, annotations=True, logs=False)
            if not self._is_refused and (self._is_urgent() or self._sending.locked()):
                self._send_urgent()
            elif self._delivery is None and not logs:
                self._find_name()
        except DatabaseUnavailableError as error:
            if self._has_home:
                self.lost(error)
                return None
        except DatabaseUnwritableError as error:
            self._is_refused = True
            _log.warning("nothing is sent from here: %s", error.message)
        return self._source

    def lost(self, error: DatabaseUnavailableError, since: float | None = None) -> bool:
        """Take note that the server can't be reached; says whether to try again.

        ``since`` is when the operation began (monotonic seconds).
        """
        if self.reads.gives_up_replica():
            return True
        if not self._has_home:
            is_tried = since is not None and time.monotonic() - since < _READER_PATIENCE_S
            if not is_tried or not self._engine.was_reached:
                return False
            return not self._stop.wait(_READER_PAUSE_S)
        if not self.why_away:
            count(ERRORS, rollbook_stage="delivery", error_type=type(error).__name__)
            _log.warning("%s: this machine goes on by itself meanwhile", error.message)
        self.why_away = error.message
        self._try_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._wake()  # so that somebody sees when it is back
        return True

    def want(
        self,
        thread_ids: Collection[str] | None = (),
        *,
        items: bool = False,
        annotations: bool = False,
        logs: bool = False,
    ) -> None:
        """Have something sent: some threads or, for None, all; with what was said in them."""
        self._want(thread_ids, items=items, annotations=annotations, logs=logs)
        self._wake()

    def _want(
        self, thread_ids: Collection[str] | None, *, items: bool, annotations: bool, logs: bool
    ) -> None:
        wanted = _Wanted()
        wanted.annotations, wanted.logs = annotations, logs
        if thread_ids is None:
            wanted.is_all, wanted.all_items = True, items
        else:
            wanted.threads = set(thread_ids)
            wanted.items = set(thread_ids) if items else set()
        with self._lock:
            self._wanted.add(wanted)

    def deliver_all(self, *, items: bool) -> None:
        """Send all that was not sent yet; what can't be now is sent when the server is back.

        Errors: DatabaseError; DatabaseUnavailableError where there is nothing else than the server.
        """
        self._want(None, items=items, annotations=True, logs=True)
        try:
            self._send_urgent()
            self._send_rest()
        except DatabaseUnavailableError as error:
            if not self._has_home:
                raise
            self.lost(error)

    def follow(self, thread_ids: Collection[str] | None) -> None:
        """Send what has changed before anybody is told of it, as far as the server can be reached.

        Only if this home is shared: to look at it is not to share it.
        """
        try:
            if not self.why_away:
                self._find_name()
                if not self._is_sharing:
                    return
                self._want(thread_ids, items=True, annotations=True, logs=True)
                if thread_ids is None:
                    self._register().threads(None, self._stop)
                self._send_urgent()
        except DatabaseUnavailableError as error:
            self.lost(error)
        except DatabaseError as error:
            _log.warning("what is new here was not sent: %s", error)
        self._wake()

    def renew(self, thread_ids: Collection[str] | None) -> None:
        """Have threads sent again as far as they have changed, if this home is shared."""
        if self._is_sharing:
            self.want(thread_ids)

    def merged(self, own: Iterator[WatchUpdate], stop: Stop) -> Iterator[WatchUpdate]:
        """Give the updates of this home, and in between those of other hosts, until it is to stop."""
        updates: SimpleQueue[WatchUpdate | BaseException | None] = SimpleQueue()
        ending = threading.Event()

        def follow_own() -> None:
            try:
                for update in own:
                    updates.put(update)
                updates.put(None)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                updates.put(error)

        following = Following(self._engine, lambda: self.host, updates.put, ending)
        threads = [
            started(follow_own, name="rollbook-watch"),
            started(following.run, name="rollbook-following"),
        ]
        try:
            while (update := updates.get()) is not None:
                if isinstance(update, BaseException):
                    raise update
                yield update
        finally:
            ending.set()
            stop.end()
            for thread in threads:
                if thread is not None:
                    thread.join()

    def forget_items(self) -> None:
        """Have all that was said here sent again."""
        with self._engine.write() as tx:
            shared.forget_items(tx, self.host)

    def close(self) -> None:
        """Send what is left, if that doesn't take long, and close the connections."""
        if self._is_urgent() and not self.why_away:
            ending = threading.Timer(_LAST_CHANCE_S, self._stop.set)
            ending.start()
            try:
                self._send_urgent()
            except DatabaseError as error:
                _log.info("sent the next time: %s", error.message)
            finally:
                ending.cancel()
        self._stop.set()
        self._wakes.set()
        if self._keeper is not None:
            self._keeper.join()
        self.reads.close()

    def _wake(self) -> None:
        with self._lock:
            if self._keeper is None and not self._stop.is_set():
                self._keeper = started(self._keep, name="rollbook-delivery")
        self._wakes.set()

    def _keep(self) -> None:
        """Send what is wanted, as soon as the server can be reached."""
        while not self._stop.is_set():
            self._wakes.wait()
            self._wakes.clear()
            while (self._wanted.has_any or self.why_away) and not self._stop.is_set():
                if self.why_away and self._stop.wait(max(self._try_at - time.monotonic(), 0)):
                    return
                try:
                    self._catch_up()
                except DatabaseUnavailableError as error:
                    self.lost(error)
                except DatabaseError as error:
                    count(ERRORS, rollbook_stage="delivery", error_type=type(error).__name__)
                    _log.warning("what is new here was not sent: %s", error)
                    break

    def _send_urgent(self) -> None:
        """Send what whoever reads here has to see."""
        with self._sending:
            with self._lock:
                wanted = self._wanted.take_urgent()
            if not wanted.has_urgent:
                return
            try:
                delivery = self._register()
                if wanted.threads:
                    delivery.threads(wanted.threads, self._stop)
                if wanted.annotations:
                    seen = self._index.annotations.file.look()
                    delivery.tell(delivery.annotations())
                    self._sent_annotations = seen
                if wanted.logs:
                    last_id = self._logs.last_id()
                    delivery.logs(self._stop)
                    self._sent_log_id = last_id
            except BaseException:
                self._want_again(wanted)
                raise
            self.reads.has_written()

    def _send_rest(self) -> None:
        """Send all the rest."""
        with self._sending_rest:
            with self._lock:
                wanted, kept = self._wanted, self._wanted.take_urgent()
                self._wanted = kept
            try:
                delivery = self._register()
                self._index.wait_for_backfill()
                if wanted.is_all:
                    delivery.threads(None, self._stop)
                    delivery.finish()
                if wanted.all_items or wanted.items:
                    delivery.items(None if wanted.all_items else wanted.items, self._stop)
            except BaseException:
                self._want_again(wanted)
                raise
            self.reads.has_written()

    def _is_urgent(self) -> bool:
        """Say whether anything is wanted soon that nobody is sending yet."""
        with self._lock:
            return self._wanted.has_urgent

    def _want_again(self, wanted: _Wanted) -> None:
        with self._lock:
            self._wanted.add(wanted)

    def _catch_up(self) -> None:
        """Send what is wanted; what was missed while the server was away is found by comparing.

        Only when all threads that were missed are there, what is there is read again.
        """
        self._find_name()
        if self.why_away:
            if self._is_sharing:
                self._want((), items=False, annotations=True, logs=True)
                self._register().threads(None, self._stop)
                self._want(None, items=True, annotations=False, logs=False)
            self._send_urgent()
            _log.warning("the database %s can be reached again", self.location)
            self.why_away, self._pause_s = "", _FIRST_PAUSE_S
        self._send_urgent()
        self._send_rest()

    def _find_name(self) -> None:
        """Find out what this host is called, if it has sent anything before; not all the time."""
        if not self._is_sharing and time.monotonic() >= self._find_name_at:
            with self._engine.read() as tx:
                name = self._known_name(tx)
            self._find_name_at = time.monotonic() + _FIND_NAME_EVERY_S
            if name is None:
                return  # which somebody may be about to change
            self._is_sharing = True
            if self._given_name is None:
                self._index.annotations.host = name

    def _register(self) -> Delivery:
        if self._delivery is None:
            home = str(self._index.home)
            with self._engine.write() as tx:
                name = self._given_name
                if name is None:
                    name = self._known_name(tx)
                if name is None:
                    name = machine()
                    name = f"{name}:{home}" if shared.is_taken(tx, name) else name
                shared.register(tx, self._machine, home, name)
                for before, place in shared.homes_of(tx, self._machine).items():
                    if place == home and before != name:
                        shared.rename(tx, before, name)
            self._index.annotations.host = name
            self._is_sharing = True
            self._delivery = Delivery(self._engine, name, self._index, self._content, self._logs)
        return self._delivery

    def _known_name(self, tx: Transaction) -> str | None:
        """Find what this home is called; or was, where it was before, as it may have been moved."""
        homes = shared.homes_of(tx, self._machine)
        own = [name for name, home in homes.items() if home == str(self._index.home)]
        moved = [name for name, home in homes.items() if not os.path.isdir(home)]
        return next(iter(own or moved), None)
