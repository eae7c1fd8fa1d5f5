"""Where threads are read from: the index of a home, or what many hosts share."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rollbook.errors import DamagedRowError
from rollbook.model.annotation import Relocations
from rollbook.model.thread import ThreadMetadata
from rollbook.store.engine import Transaction

if TYPE_CHECKING:
    from rollbook.index.projects import ProjectNames


class Readable(Protocol):
    """A database that can be read; see :class:`rollbook.store.engine.Engine`."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Lend a transaction to read in."""


class Shown(Protocol):
    """What was said of threads; see :class:`rollbook.index.annotations.ThreadAnnotations`."""

    @property
    def relocations(self) -> Relocations:
        """Which directories of this machine are elsewhere now."""

    def refresh(self) -> None:
        """Take over what was said since."""

    def shown(self, found: list[ThreadMetadata]) -> list[ThreadMetadata]:
        """Show threads as the person sees them."""


class Source(Protocol):
    """All that reading threads takes."""

    @property
    def home(self) -> Path:
        """Where rollouts are whose paths are relative."""

    @property
    def engine(self) -> Readable:
        """The database."""

    @property
    def annotations(self) -> Shown:
        """What was said of threads."""

    def leave_out(self, damage: DamagedRowError) -> None:
        """Decide what a row with impossible values means for a list."""

    def project_names(self) -> "ProjectNames":
        """Name projects as they are to be named now."""
