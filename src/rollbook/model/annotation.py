"""What only a person knows of threads: names, tags, pins, deletions, and where directories went.

It is kept as the lines that say so, oldest first; :func:`fold` tells what they come to.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from rollbook.errors import InvalidThreadIdError, UsageError
from rollbook.model.thread import ThreadMetadata, clean_text, parse_thread_id
from rollbook.model.times import to_epoch

_LONGEST_TAG = 100
_MS = 1000
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Line(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """One thing that a person has said, when, and of which thread, if it is about one.

    ``kind`` says which of the other fields count: ``name`` (None takes the name back), ``tag`` and
    ``untag`` (``tags``), ``pin``, ``unpin``, ``delete`` (all of the thread up to its last turn,
    which was ``through``), ``relocate`` (a directory, from ``old`` to ``new``).
    """

    time: _Time
    kind: str
    thread_id: str = ""
    name: str | None = None
    tags: tuple[str, ...] = ()
    through: _Time | None = None
    old: str = ""
    new: str = ""


class Mark(msgspec.Struct, frozen=True):
    """What was said of one thread.

    ``named_at`` is in milliseconds since the epoch.  ``deleted_through`` is the time of the last
    turn that the thread had when it was deleted (epoch seconds), None where it never was.
    """

    name: str | None = None
    named_at: int = 0
    tags: tuple[str, ...] = ()
    pinned: bool = False
    deleted_through: int | None = None


class Relocations(msgspec.Struct, frozen=True):
    """Which directories are elsewhere now, in the order in which they were moved."""

    moves: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.moves)

    def then(self, old: str, new: str) -> "Relocations":
        """Move one more; moving one back takes its move away, if nothing near was moved since."""
        for place in range(len(self.moves) - 1, -1, -1):
            move = self.moves[place]
            if move == (new, old):
                return Relocations(self.moves[:place] + self.moves[place + 1 :])
            if any(_are_near(each, other) for each in move for other in (old, new)):
                break
        return Relocations((*self.moves, (old, new)))

    def place_of(self, directory: str) -> str:
        """Say where a recorded directory is now."""
        for old, new in self.moves:
            if is_below(directory, old):
                directory = _moved(directory, old, new)
        return directory

    def recorded_as(self, directory: str) -> tuple[str, ...]:
        """Say which recorded directories are now at a place: it alone, others, or none."""
        found = {directory}
        for old, new in reversed(self.moves):
            stayed = {each for each in found if not is_below(each, old)}
            came = {_moved(each, new, old) for each in found if is_below(each, new)}
            found = stayed | came
        return tuple(sorted(found))


class Annotations(msgspec.Struct, frozen=True):
    """All that the lines come to."""

    marks: dict[str, Mark]
    relocations: Relocations


def fold(lines: Iterable[Line]) -> Annotations:
    """Tell what lines come to; those of a kind that this release doesn't know say nothing."""
    marks: dict[str, Mark] = {}
    relocations = Relocations()
    for line in lines:
        if line.kind == "relocate" and line.old and line.new:
            relocations = relocations.then(line.old, line.new)
        elif line.kind in _OF_THREADS and line.thread_id:
            before = marks.get(line.thread_id, Mark())
            changes = _OF_THREADS[line.kind](before, line)
            marks[line.thread_id] = msgspec.structs.replace(before, **changes)
    return Annotations(marks, relocations)


def _named(before: Mark, line: Line) -> dict[str, Any]:
    del before
    return {"name": line.name, "named_at": milliseconds(line.time)}


def _deleted(before: Mark, line: Line) -> dict[str, Any]:
    del before
    return {"deleted_through": to_epoch(line.through or line.time)}


_OF_THREADS: dict[str, Callable[[Mark, Line], dict[str, Any]]] = {
    "name": _named,
    "tag": lambda before, line: {"tags": tuple(sorted({*before.tags, *line.tags}))},
    "untag": lambda before, line: {"tags": tuple(sorted({*before.tags} - {*line.tags}))},
    "pin": lambda _before, _line: {"pinned": True},
    "unpin": lambda _before, _line: {"pinned": False},
    "delete": _deleted,
}


def annotated(
    thread: ThreadMetadata, mark: Mark | None, relocations: Relocations
) -> ThreadMetadata:
    """Show a thread, as its rollouts say, as the person sees it."""
    changes: dict[str, Any] = {}
    place = relocations.place_of(thread.cwd)
    if place != thread.cwd:
        changes = {"cwd": place, "recorded_cwd": thread.cwd}
    if mark is not None:
        changes |= {"tags": mark.tags, "pinned": mark.pinned}
        if mark.name is not None:
            changes["name"] = mark.name
    return msgspec.structs.replace(thread, **changes) if changes else thread


def milliseconds(time: datetime) -> int:
    """Turn a time into milliseconds since the epoch."""
    return to_epoch(time) * _MS + time.microsecond // _MS


def checked_name(name: str) -> str:
    """Bring a name onto one line.  Errors: UsageError for one without a visible character."""
    line = " ".join(clean_text(name).split())
    if not line:
        raise UsageError("a name can't be empty", hint="None, or --clear, takes a name back")
    return line


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Bring tags into their order and form.  Errors: UsageError for what is none, or for none."""
    if isinstance(tags, str):
        raise UsageError("tags are a list of texts, not one text")
    found = {" ".join(clean_text(tag).split()) for tag in tags}
    if not found or any(not 0 < len(tag) <= _LONGEST_TAG for tag in found):
        raise UsageError(f"a tag has 1 to {_LONGEST_TAG} characters", hint="name at least one")
    return tuple(sorted(found))


def canonical(line: Line) -> Line | None:
    """Bring a line that was read into canonical form; None for one that can't be meant."""
    try:
        thread_id = line.thread_id and parse_thread_id(line.thread_id)
    except InvalidThreadIdError:
        return None
    return msgspec.structs.replace(
        line,
        thread_id=thread_id,
        name=line.name if line.name is None else clean_text(line.name),
        tags=tuple(map(clean_text, line.tags)),
        old=clean_text(line.old),
        new=clean_text(line.new),
    )


def is_below(directory: str, above: str) -> bool:
    """Say whether a directory is another one, or below it."""
    return directory == above or directory.startswith(above.rstrip("/") + "/")


def _moved(directory: str, old: str, new: str) -> str:
    rest = directory[len(old.rstrip("/")) :].lstrip("/")
    return f"{new.rstrip('/')}/{rest}" if rest else new


def _are_near(one: str, other: str) -> bool:
    return is_below(one, other) or is_below(other, one)
