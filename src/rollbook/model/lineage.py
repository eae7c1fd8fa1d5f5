"""How threads descend from each other."""

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from rollbook.model.thread import ThreadMetadata


class Relation(StrEnum):
    """What a thread is to the one above it in the tree."""

    ROOT = "root"
    FORK = "fork"
    SUBAGENT = "subagent"
    REVIEW = "review"


class LineageNode(msgspec.Struct, frozen=True):
    """A thread among those that it descends from, and those that descend from it.

    ``thread`` is None where one is named by others and not known, as its rollout is gone; otherwise
    it is what a list shows.  ``segments`` counts the rollouts that it is in: more than one where it
    was resumed in a new file.  ``children`` are ordered by their creation.
    """

    id: str
    relation: Relation
    thread: ThreadMetadata | None = None
    segments: int = 0
    children: tuple["LineageNode", ...] = ()

    def walk(self) -> Iterator[tuple[int, "LineageNode"]]:
        """Go through the tree, each thread before its children, with how deep it is."""
        left: list[tuple[int, LineageNode]] = [(0, self)]
        while left:
            depth, node = left.pop()
            yield depth, node
            left += [(depth + 1, child) for child in reversed(node.children)]

    def around(self, thread_id: str, most: int) -> tuple[list[tuple[int, "LineageNode"]], int]:
        """Give what :meth:`walk` goes through near a thread of the tree, and how many there are in all."""
        nodes = list(self.walk())
        here = next(place for place, (_, node) in enumerate(nodes) if node.id == thread_id)
        start = max(0, min(here - most // 2, len(nodes) - most))
        return nodes[start : start + most], len(nodes)
