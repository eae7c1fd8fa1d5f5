"""Bring the content database in step with the rollouts, after the index was.

As the comparison of the index, it has no state "done": it may be killed at any moment, and the next
run reads on.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec

from rollbook.content.places import by_key, folded_text
from rollbook.content.reading import ContentReader, Part
from rollbook.content.texts import FoldedChunk
from rollbook.content.words import spaced
from rollbook.errors import RolloutError
from rollbook.index.progress import Meter
from rollbook.index.repair import rollouts_of
from rollbook.model.outcome import ProgressCallback, SyncStage
from rollbook.model.search import TextScope
from rollbook.store import content_files, files, texts, usage
from rollbook.store.content_files import ContentFile
from rollbook.store.engine import Engine, Transaction
from rollbook.telemetry import ERRORS, count

_BATCH_CHARACTERS = 4 << 20
_FEW = 200  # threads that are looked at by themselves
_BATCH_S = 1.0
_COMPACT_AFTER = 64 << 20  # characters of one run
_log = logging.getLogger(__name__)


class Building:
    """One run over the rollouts of a home, or those of some threads.

    ``content`` is the database that is brought in step; ``index`` says which rollouts there are.
    The caller holds the lock that lets one process do this.
    """

    def __init__(
        self,
        content: Engine,
        index: Engine,
        home: Path,
        *,
        rebuild: bool = False,
        progress: ProgressCallback | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._content = content
        self._index = index
        self._home = home
        self._rebuild = rebuild
        self._meter = Meter(progress, SyncStage.CONTENT)
        self._stop = stop or threading.Event()
        self._recent: dict[int, str] = {}  # what is said in chunks whose group isn't complete

    def run(self, thread_ids: Collection[str] | None = None, changed: Collection[str] = ()) -> bool:
        """Do it; says whether it came to its end.

        Where the threads that have ``changed`` are all that there is to do, no other is looked at.
        What can't be read is logged and counted, and tried again the next time.
        """
        if thread_ids is not None or self._rebuild:
            return self._run(thread_ids)
        if self._is_in_step():
            return True
        if 0 < len(changed) <= _FEW and self._run(changed) and self._is_in_step():
            return True
        return self._run(None)

    def _run(self, thread_ids: Collection[str] | None) -> bool:
        with self._content.read() as tx:
            scope = content_files.get_state(tx).scope
            if thread_ids is None:
                known = content_files.get_all(tx)
            else:
                known = content_files.of_threads(tx, thread_ids)
        present = self._present(thread_ids, scope)
        gone = known.keys() - present.keys()
        if gone:
            with self._content.write() as tx:
                forget(tx, gone)
        changed = [
            (known.get(key), file)
            for key, file in present.items()
            if self._rebuild or not _is_read(known.get(key), file)
        ]
        changed.sort(key=lambda pair: PurePosixPath(pair[1].path).name, reverse=True)
        self._meter.expect([file.size for _, file in changed])
        added = 0
        for batch in self._batches(changed):
            with self._content.write() as tx:
                self._store(tx, batch)
            added += sum(part.characters for part in batch)
        return self._finish(is_whole=thread_ids is None, is_much=added > _COMPACT_AFTER)

    def _is_in_step(self) -> bool:
        """Say whether there is nothing to do, without a look at each rollout."""
        with self._index.read() as tx:
            wanted = files.signature(tx)
        with self._content.read() as tx:
            is_complete = content_files.get_state(tx).completed_at is not None
            return is_complete and content_files.signature(tx) == (*wanted, 0)

    def _finish(self, *, is_whole: bool, is_much: bool) -> bool:
        if self._stop.is_set():
            return False
        if is_much or is_whole:
            with self._content.write() as tx:
                if is_much:
                    texts.compact(tx)
                if is_whole:
                    content_files.set_completed(tx, int(time.time()))
        return True

    def _present(
        self, thread_ids: Collection[str] | None, scope: TextScope
    ) -> dict[str, ContentFile]:
        """Find the rollouts that the index has, by key."""
        with self._index.read() as tx:
            rows = by_key(files.located(tx, thread_ids))
        return {
            key: ContentFile(
                key=key,
                thread_id=row.thread_id,
                path=row.path,
                compressed=row.compressed,
                size=row.size,
                mtime_ns=row.mtime_ns,
                inode=row.inode,
                scope=scope,
            )
            for key, row in rows.items()
        }

    def _batches(
        self, changed: list[tuple[ContentFile | None, ContentFile]]
    ) -> Iterator[list[Part]]:
        """Read rollouts, and give what is worth a transaction."""
        batch: list[Part] = []
        characters, since = 0, time.monotonic()
        for known, file in changed:
            for part in self._parts(known, file):
                batch.append(part)
                characters += part.characters
                if characters > _BATCH_CHARACTERS or time.monotonic() - since > _BATCH_S:
                    yield batch
                    batch, characters, since = [], 0, time.monotonic()
                if self._stop.is_set():
                    break
            self._meter.advance(file.size)
            if self._stop.is_set():
                break
        if batch:
            yield batch

    def _parts(self, known: ContentFile | None, file: ContentFile) -> Iterator[Part]:
        if known is not None and not self._rebuild and _is_same(known, file):  # only moved
            moved = msgspec.structs.replace(known, path=file.path)
            yield Part(moved, [], [], is_first=False, renews_last=False)
            return
        try:
            find = partial(rollouts_of, self._index, self._home)
            reader = ContentReader(self._home, None if self._rebuild else known, file, find)
            yield from reader.parts()
        except RolloutError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # moved or gone: seen next time
                count(ERRORS, rollbook_stage="content", error_type=type(error).__name__)
                _log.warning("not searchable: %s", error.message)

    def _store(self, tx: Transaction, batch: list[Part]) -> None:
        for part in batch:
            before = content_files.id_of(tx, part.file.key)
            if before is not None and part.is_first:
                texts.delete_all_of(tx, before)
                usage.delete(tx, before)
            elif before is not None and part.renews_last:
                texts.delete_last_of(tx, before)
            file_id = content_files.upsert(tx, part.file)
            for each in part.chunks:
                self._store_chunk(tx, file_id, each)
            usage.add(tx, part.file.thread_id, file_id, part.used)

    def _store_chunk(self, tx: Transaction, file_id: int, each: FoldedChunk) -> None:
        number = texts.insert(
            tx, file_id, each.chunk, messages=spaced(each.messages), tools=spaced(each.tools)
        )
        self._recent[number] = f"{each.messages}\n{each.tools}"
        group = texts.group_that_ends(number)
        if group is not None:
            chunks = texts.of_group(tx, group)
            texts.insert_trigrams(tx, group, self._text_of(tx, chunks))
            self._recent.clear()

    def _text_of(self, tx: Transaction, chunks: list[texts.Chunk]) -> str:
        """Get what is said in some chunks, some of which may have been stored by an earlier run."""
        unknown = [chunk for chunk in chunks if chunk.id not in self._recent]
        rollouts = content_files.by_ids(tx, {chunk.file_id for chunk in unknown})
        now = self._present({file.thread_id for file in rollouts.values()}, TextScope.NOTHING)
        again = (
            folded_text(self._home, now[rollout.key], chunk)
            for chunk in unknown
            if (rollout := rollouts[chunk.file_id]).key in now  # else its chunks will go, too
        )
        return "\n".join([*self._recent.values(), *again])


def forget(tx: Transaction, keys: Iterable[str]) -> None:
    """Take all that was read of some rollouts out of the database."""
    for key in keys:
        file_id = content_files.id_of(tx, key)
        if file_id is not None:
            texts.delete_all_of(tx, file_id)
            usage.delete(tx, file_id)
            content_files.delete(tx, file_id)


def _is_read(known: ContentFile | None, file: ContentFile) -> bool:
    return known is not None and _is_same(known, file) and known.path == file.path


def _is_same(known: ContentFile, file: ContentFile) -> bool:
    """Say whether a rollout has not changed, though it may have been moved."""
    return (known.size, known.mtime_ns, known.inode, known.compressed, known.scope) == (
        file.size,
        file.mtime_ns,
        file.inode,
        file.compressed,
        file.scope,
    )
