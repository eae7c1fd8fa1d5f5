"""Which project threads belong to: the repository, else the directory, that they work in."""

import os
from collections import defaultdict
from collections.abc import Iterable

from rollbook.errors import UsageError
from rollbook.git import main_work_tree
from rollbook.model.annotation import Relocations, is_below
from rollbook.model.project import Project, project_of
from rollbook.model.times import from_epoch
from rollbook.store import threads
from rollbook.store.engine import Transaction
from rollbook.store.threads import Group

_SHOWN_CANDIDATES = 5


class ProjectNames:
    """Names projects; looks each directory up on disk once."""

    def __init__(self, relocations: Relocations) -> None:
        self._relocations = relocations
        self._roots: dict[str, str] = {}
        self._keys: dict[tuple[str, str | None], str] = {}

    def of(self, cwd: str, origin: str | None) -> str:
        """Name the project of threads by their directory and repository, as recorded."""
        if (cwd, origin) not in self._keys:
            has_origin = bool(origin and origin.strip())
            directory = "" if has_origin else self.root_of(self.place_of(cwd))
            self._keys[cwd, origin] = project_of(directory, origin)
        return self._keys[cwd, origin]

    def place_of(self, cwd: str) -> str:
        """Say where a recorded directory is now."""
        return self._relocations.place_of(cwd)

    def root_of(self, directory: str) -> str:
        """Give the work tree that a directory is in; itself where that is none, or not there."""
        if directory not in self._roots:
            self._roots[directory] = main_work_tree(directory) or directory
        return self._roots[directory]


def projects(tx: Transaction, names: ProjectNames) -> list[Project]:
    """Read all projects that somebody has said anything in, the latest first."""
    by_key: dict[str, list[Group]] = defaultdict(list)
    for group in threads.groups(tx):
        if group.threads and group.has_user_event:
            by_key[names.of(group.cwd, group.origin)].append(group)
    found = [_project(key, groups, names) for key, groups in by_key.items()]
    found.sort(key=lambda project: (project.recency_at, project.key), reverse=True)
    return found


def _project(key: str, groups: list[Group], names: ProjectNames) -> Project:
    groups.sort(key=lambda group: group.recency_at, reverse=True)
    return Project(
        key=key,
        directories=tuple(dict.fromkeys(names.place_of(group.cwd) for group in groups)),
        origin=next((group.origin for group in groups if group.origin), None),
        threads=sum(group.threads for group in groups if not group.archived),
        archived_threads=sum(group.threads for group in groups if group.archived),
        recency_at=from_epoch(groups[0].recency_at),
    )


def groups_of(tx: Transaction, names: ProjectNames, project: str) -> tuple[int, ...]:
    """Find the groups of the threads of a project, by its key, the end of that, or a directory.

    None for an unknown one.  Errors: UsageError for an end that several have.
    """
    places = threads.group_places(tx)
    key_of = {number: names.of(cwd, origin) for number, cwd, origin in places}
    if project in key_of.values():
        keys = {project}
    elif project.startswith(("/", ".", "~")):
        directory = os.path.abspath(os.path.expanduser(project))
        root = names.root_of(directory)
        is_root = main_work_tree(root) == root
        keys = {
            key_of[number]
            for number, cwd, _ in places
            if (place := names.place_of(cwd)) == directory or (is_root and is_below(place, root))
        }
    else:
        keys = _ending(set(key_of.values()), project)
    return tuple(number for number, key in key_of.items() if key in keys)


def _ending(keys: Iterable[str], end: str) -> set[str]:
    found = {key for key in keys if key.endswith(f"/{end}")}
    if len(found) > 1:
        candidates = ", ".join(sorted(found)[:_SHOWN_CANDIDATES])
        raise UsageError(f"{end[:100]!r} fits several projects: {candidates}", hint="give more")
    return found


def threads_below(tx: Transaction, names: ProjectNames, directory: str) -> int:
    """Count the threads that work in a directory, as it is now, or below it."""
    return sum(
        group.threads
        for group in threads.groups(tx)
        if is_below(names.place_of(group.cwd), directory)
    )
