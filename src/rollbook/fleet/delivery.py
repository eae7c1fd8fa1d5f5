"""Send what is this host's: threads, what was said in them and of them, and logs.

What was sent is known where it was sent to, and is changed with it, in one transaction.  So whatever
breaks off can be done again, and comes to the same: nothing is there twice, and nothing is missing.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import msgspec

from rollbook.content.database import ContentDatabase
from rollbook.content.places import by_key
from rollbook.errors import AnnotationsError, RolloutError
from rollbook.fleet.items import is_sent, unsent
from rollbook.index.home import HomeIndex
from rollbook.logs.database import LogDatabase
from rollbook.model.annotation import Line, fold, milliseconds
from rollbook.model.search import TextScope
from rollbook.store import annotations as marks
from rollbook.store import files, logs, shared, shared_logs, threads, tools, usage
from rollbook.store.engine import Row
from rollbook.store.postgres import PostgresEngine
from rollbook.store.shared import Outgoing
from rollbook.telemetry import ERRORS, count

_THREADS_AT_ONCE = 2000
_MANY_THREADS = 1000  # after so many, the server had better look at its tables again
_LOG_ROWS_AT_ONCE = 10_000
_DAY_S = 86_400
_TOLD_IDS = 100  # in one notification; of more, nobody is told which
_PATH, _CWD = (threads.STORED.index(column) for column in ("rollout_path", "cwd"))
_decode_line = msgspec.json.Decoder(Line).decode
_log = logging.getLogger(__name__)


class Delivery:
    """Sends what one home has to a database that is shared, as ``host``."""

    def __init__(
        self,
        engine: PostgresEngine,
        host: str,
        index: HomeIndex,
        content: ContentDatabase,
        logs: LogDatabase,
    ) -> None:
        self._engine = engine
        self._host = host
        self._index = index
        self._content = content
        self._logs = logs
        self._home = Path(index.home)
        self._days: set[int] = set()  # that have a partition
        self._expires_next = 0.0

    def threads(self, thread_ids: Collection[str] | None, stop: threading.Event) -> set[str]:
        """Send the threads that have changed, of some or of all; gives those that had.

        What is here no more is taken away there; of all only if this home was indexed as a whole.
        """
        with self._engine.read() as tx:
            known = shared.digests(tx, self._host, thread_ids)
        with self._index.engine.read() as local:
            wanted = threads.all_ids(local) if thread_ids is None else list(thread_ids)
        changed: set[str] = set()
        present: set[str] = set()
        for ids in _batched(wanted):
            if stop.is_set():
                return changed
            with self._engine.write() as tx:
                # Others of this home, too, read what they send only when it is their turn.
                shared.take_turn(tx, self._host)
                before = shared.digests(tx, self._host, ids)
                found = self._outgoing(ids)
                digests = {each.digest(): each for each in found}
                sent = {d: each for d, each in digests.items() if before.get(each.id) != d}
                if sent:
                    shared.put_threads(tx, self._host, sent, before.keys())
            present.update(each.id for each in found)
            changed.update(each.id for each in sent.values())
        is_complete = thread_ids is not None or self._index.is_synced()
        gone = [each for each in known if each not in present] if is_complete else []
        for ids in _batched(gone):
            with self._engine.write() as tx:
                shared.take_turn(tx, self._host)
                with self._index.engine.read() as local:  # one may have come back
                    back = threads.known(local, ids)
                shared.delete_threads(tx, self._host, [each for each in ids if each not in back])
        self.tell(changed.union(gone))
        if len(changed) > _MANY_THREADS:
            with self._engine.write() as tx:
                shared.analyze(tx)
        return changed.union(gone)

    def finish(self) -> None:
        """Remember that all of this host was compared."""
        with self._engine.write() as tx:
            shared.set_delivered(tx, self._host, int(time.time()))

    def tell(self, changed: Collection[str]) -> None:
        """Tell those who follow which threads have changed.

        In a transaction of its own: all who commit with a notification wait for each other.
        """
        if changed:
            ids = sorted(changed) if len(changed) <= _TOLD_IDS else None
            message = msgspec.json.encode({"host": self._host, "threads": ids}).decode()
            with self._engine.write() as tx:
                shared.tell(tx, self._host, message)

    def items(self, thread_ids: Collection[str] | None, stop: threading.Event) -> None:
        """Send what was said since the last time in the rollouts of some threads, or of all.

        What can't be read is logged and counted, and tried again the next time.
        """
        if thread_ids is None:
            with self._engine.read() as tx:
                thread_ids = sorted(shared.digests(tx, self._host), reverse=True)
        scope = self._content.state().scope
        for ids in _batched(thread_ids):
            with self._engine.read() as tx:
                rollouts = shared.rollouts(tx, self._host, ids)
            for rollout in rollouts:
                if stop.is_set():
                    return
                if not is_sent(rollout, scope):
                    self._send_items(rollout, scope)

    def _send_items(self, rollout: shared.SentRollout, scope: TextScope) -> None:
        try:
            for part in unsent(self._home, rollout, scope):
                with self._engine.write() as tx:
                    shared.take_turn(tx, rollout.thread_id)
                    if not shared.is_as_read(tx, self._host, rollout):
                        return  # another process of this home is sending it
                    if part.is_first:
                        shared.delete_items(tx, self._host, rollout.thread_id, rollout.key)
                    shared.put_items(tx, self._host, part.rollout, part.items)
                rollout = part.rollout
        except RolloutError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # moved or gone: seen next time
                count(ERRORS, rollbook_stage="delivery", error_type=type(error).__name__)
                _log.warning("what was said was not sent: %s", error.message)

    def annotations(self) -> set[str]:
        """Send what the file of annotations says; gives the threads that it says anything else of."""
        with self._engine.write() as tx:
            shared.take_turn(tx, self._host)
            try:
                now = self._said()
            except AnnotationsError as error:
                _log.warning("what was said of threads was not sent: %s", error.message)
                return set()
            before = shared.lines_of_host(tx, self._host)
            changed = {id_ for id_ in before.keys() | now.keys() if before.get(id_) != now.get(id_)}
            for thread_id in sorted(changed):
                shared.take_turn(tx, thread_id)  # as other hosts may say something of it, too
                shared.put_lines(tx, self._host, thread_id, now.get(thread_id, []))
                said = map(_decode_line, shared.lines_of_thread(tx, thread_id))
                ordered = sorted(said, key=lambda line: line.time)
                marks.replace_marks(tx, marks.of_threads(tx, [thread_id]), fold(ordered).marks)
        return changed

    def _said(self) -> dict[str, list[str]]:
        """Read the lines of the file that still count, by thread."""
        given = self._index.annotations.given()
        said: dict[str, list[str]] = defaultdict(list)
        for line in self._index.annotations.file.read():
            outdone = given.get(line.thread_id)
            is_outdone = (
                line.kind == "name"
                and outdone is not None
                and outdone.given_at is not None
                and milliseconds(outdone.given_at) > milliseconds(line.time)
            )
            if line.thread_id and not is_outdone:
                said[line.thread_id].append(msgspec.json.encode(line).decode())
        return said

    def logs(self, stop: threading.Event) -> int:
        """Send the log rows that were not sent yet, in order, each once; says how many.

        Once a day, days that are older than logs are to be are dropped, for whoever owns them.
        """
        total = 0
        while not stop.is_set():
            sent = self._send_logs()
            total += sent
            if sent < _LOG_ROWS_AT_ONCE:
                break
        if time.monotonic() >= self._expires_next:
            self._expires_next = time.monotonic() + _DAY_S
            with self._engine.write() as tx:
                shared_logs.drop_days_before(tx, int(time.time()) - self._logs.retention_s)
            self._days.clear()
        return total

    def _send_logs(self) -> int:
        with self._engine.read() as tx:
            after = self._position(shared_logs.position(tx, self._host))
        rows = self._logs.rows_after(after, _LOG_ROWS_AT_ONCE)
        if not rows:
            return 0
        days = shared_logs.days_of(rows) - self._days
        for day in sorted(days):
            with self._engine.write() as tx:
                shared_logs.make_partition(tx, day)
        self._days |= days
        with self._engine.write() as tx:
            # Another process of this home may have sent them since.
            if self._position(shared_logs.locked_position(tx, self._host)) != after:
                return len(rows)
            shared_logs.put(tx, self._host, rows)
        return len(rows)

    def _position(self, known: tuple[int, str]) -> int:
        """Say up to which row these logs were sent: none of them, if it was another file's rows."""
        last_id, last_row = known
        there = self._logs.rows_after(last_id - 1, 1) if last_id else []
        if there and there[0][0] == last_id:
            return last_id if logs.digest_of(there[0]) == last_row else 0
        return last_id if last_id <= self._logs.last_id() else 0

    def _outgoing(self, thread_ids: Sequence[str]) -> list[Outgoing]:
        index = self._index
        with index.engine.read() as tx:
            rows = threads.stored(tx, thread_ids, index.leave_out)
            texts = threads.long_texts(tx, thread_ids)
            of_tools = _by_thread(tools.rows_of(tx, thread_ids))
            located: dict[str, list[files.Located]] = defaultdict(list)
            for each in files.located(tx, thread_ids):
                located[each.thread_id].append(each)
        used = _by_thread(self._content.read(lambda tx: usage.of_threads(tx, thread_ids)))
        return [
            Outgoing(
                self._as_it_is_here(row),
                texts.get(row[0]),
                of_tools.get(row[0], []),
                by_key(located[row[0]]) if row[0] in located else {},
                used.get(row[0], []),
            )
            for row in rows
        ]

    def _as_it_is_here(self, row: Row) -> Row:
        """Give a row the place of its rollout, and its directory where that is now."""
        values = list(row)
        if not values[_PATH].startswith("/"):
            values[_PATH] = f"{self._home}/{values[_PATH]}"
        if self._index.annotations.relocations:
            values[_CWD] = self._index.annotations.relocations.place_of(values[_CWD])
        return tuple(values)


def _batched(thread_ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(thread_ids)
    while batch := list(islice(rest, _THREADS_AT_ONCE)):
        yield batch


def _by_thread(rows: list[Row]) -> dict[str, list[Row]]:
    return {thread_id: list(each) for thread_id, each in groupby(rows, key=itemgetter(0))}
