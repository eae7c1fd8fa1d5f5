"""The tree that a thread belongs to."""

from collections.abc import Callable

import msgspec

from rollbook.errors import DamagedRowError
from rollbook.model.lineage import LineageNode, Relation
from rollbook.model.thread import ThreadMetadata
from rollbook.rollout.layout import RolloutFile, choose_files
from rollbook.store import files, lineage, threads
from rollbook.store.engine import Transaction

_REVIEW = '{"subagent":"review"}'


class _Found(msgspec.Struct, frozen=True):
    """A thread of the tree: below which one, and by which of its links."""

    above: str
    relation: Relation


def tree_of(
    tx: Transaction,
    home: str,
    thread_id: str,
    on_damage: Callable[[DamagedRowError], None],
    shown: Callable[[list[ThreadMetadata]], list[ThreadMetadata]],
) -> LineageNode:
    """Read the whole tree that a thread belongs to, whichever of its threads that is.

    A thread stands in it once: below its parent, else below the one that it was forked from.  One
    that is named and not known is there, too, as those that name it belong together.
    """
    found = _descendants(tx, _root_of(tx, thread_id))
    several = shown(threads.several(tx, home, found, on_damage))
    known = {thread.id: thread for thread in several}
    segments = _segments(tx, list(found))
    below: dict[str, list[LineageNode]] = {}
    for each, link in reversed(found.items()):  # children before those above them
        thread = known.get(each)
        node = LineageNode(
            each,
            _relation(link.relation, thread),
            thread,
            segments.get(each, 0),
            tuple(sorted(below.pop(each, ()), key=_birth)),
        )
        below.setdefault(link.above, []).append(node)
    return node


def _root_of(tx: Transaction, thread_id: str) -> str:
    """Find the thread that all descends from; of a circle, the one with the lowest id."""
    path = {thread_id: None}
    while above := lineage.ancestor(tx, thread_id):
        if above in path:
            chain = list(path)
            return min(chain[chain.index(above) :])
        path[above] = None
        thread_id = above
    return thread_id


def _descendants(tx: Transaction, root: str) -> dict[str, _Found]:
    """Find all threads of a tree, level by level."""
    found = {root: _Found("", Relation.ROOT)}
    level = [root]
    while level:
        links = [(*link, Relation.SUBAGENT) for link in lineage.subagents(tx, level)]
        links += [(*link, Relation.FORK) for link in lineage.forks(tx, level)]
        level = []
        for thread_id, above, relation in links:
            if thread_id not in found:
                found[thread_id] = _Found(above, relation)
                level.append(thread_id)
    return found


def _segments(tx: Transaction, thread_ids: list[str]) -> dict[str, int]:
    by_thread: dict[str, list[RolloutFile]] = {}
    for row in files.located(tx, thread_ids):
        file = RolloutFile(row.path, row.compressed, row.size, row.mtime_ns, row.inode)
        by_thread.setdefault(row.thread_id, []).append(file)
    return {each: len(choose_files(each, candidates)) for each, candidates in by_thread.items()}


def _relation(link: Relation, thread: ThreadMetadata | None) -> Relation:
    is_review = link is not Relation.ROOT and thread is not None and thread.source == _REVIEW
    return Relation.REVIEW if is_review else link


def _birth(node: LineageNode) -> tuple[float, str]:
    return (node.thread.created_at.timestamp() if node.thread else 0, node.id)
