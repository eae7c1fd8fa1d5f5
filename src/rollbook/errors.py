"""What can go wrong, as one tree.

    RollbookError                 failed         exit 1
    ├── UsageError                usage          exit 2   the request itself is wrong
    │   ├── InvalidThreadIdError  invalid_id     exit 2
    │   ├── AmbiguousIdError      ambiguous_id   exit 2
    │   └── InvalidCursorError    invalid_cursor exit 2
    ├── HomeError                 home           exit 1   the home exists but can't be used
    │   └── HomeNotFoundError     home_not_found exit 3
    ├── ThreadNotFoundError       not_found      exit 3
    │   └── ThreadElsewhereError  elsewhere      exit 3   its rollout is on another host
    ├── ThreadInUseError          in_use         exit 4   another recorder writes to the thread
    ├── AnnotationsError          annotations    exit 1   names and tags can't be kept
    ├── ExportError               export         exit 1   a document can't be written
    ├── ForbiddenError            forbidden      exit 1   a request that may be another site's
    ├── RolloutError              rollout        exit 1   one rollout can't be read, moved, written
    └── DatabaseError             database       exit 1
        ├── DatabaseBusyError     busy           exit 4
        ├── DatabaseDamagedError  damaged        exit 5
        │   └── DamagedRowError   damaged        exit 5   one row of it
        ├── DatabaseUnavailableError unavailable exit 4   its server can't be reached, or was lost
        ├── DatabaseUnwritableError unwritable   exit 1   no permission, a full or read-only disk
        └── DatabaseVersionError  newer_database exit 1

Every error carries a stable ``code`` (in JSON), an ``exit_code`` (of the command line), a message
that says what happened to which file or id, and a ``hint`` that says what to do now.  An engine
translates its driver's errors into these and keeps the driver's error as the cause.
"""

from typing import ClassVar


class RollbookError(Exception):
    """Any failure that Rollbook reports: ``code``, ``exit_code``, ``message`` and ``hint``."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(RollbookError):
    """The request is wrong in itself: a page size below 0, an option that doesn't exist."""

    code = "usage"
    exit_code = 2


class InvalidThreadIdError(UsageError):
    """A text that should be a thread id is no UUID."""

    code = "invalid_id"


class AmbiguousIdError(UsageError):
    """A shortened id fits more than one thread."""

    code = "ambiguous_id"


class InvalidCursorError(UsageError):
    """A text that should be a cursor isn't of the form ``<time>|<uuid>``."""

    code = "invalid_cursor"


class HomeError(RollbookError):
    """The home is there but can't be used, for example because it is a file."""

    code = "home"


class HomeNotFoundError(HomeError):
    """There is no directory where the home should be."""

    code = "home_not_found"
    exit_code = 3


class ThreadNotFoundError(RollbookError):
    """No thread has this id, neither in the database nor on disk."""

    code = "not_found"
    exit_code = 3


class ThreadElsewhereError(ThreadNotFoundError):
    """The thread is known, and what is asked for is only in its rollout: that is on ``host``."""

    code = "elsewhere"

    def __init__(self, message: str, *, host: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host


class ThreadInUseError(RollbookError):
    """Another recorder, of this process or another, has the thread's rollout open for writing."""

    code = "in_use"
    exit_code = 4


class AnnotationsError(RollbookError):
    """The file of names, tags and pins can't be read or written."""

    code = "annotations"


class ExportError(RollbookError):
    """A document is there already, or can't be written."""

    code = "export"


class ForbiddenError(RollbookError):
    """A request to the page that may be another site's, and not the person's."""

    code = "forbidden"


class RolloutError(RollbookError):
    """One file of a home can't be read, moved or written: ``path`` says which, ``reason`` why."""

    code = "rollout"

    def __init__(self, reason: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(f"{path} {reason}".strip(), hint=hint)
        self.path = path
        self.reason = reason


class DatabaseError(RollbookError):
    """The database refused a statement or can't be opened."""

    code = "database"


class DatabaseBusyError(DatabaseError):
    """Somebody else holds the lock for longer than Rollbook waits."""

    code = "busy"
    exit_code = 4


class DatabaseDamagedError(DatabaseError):
    """The file isn't a database, or what is in it contradicts itself.

    ``reason`` is what is wrong, in a few words, and ``file`` which file that was, as its engine
    tells files apart, where it is known.
    """

    code = "damaged"
    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.file: tuple[int, ...] | None = None


class DamagedRowError(DatabaseDamagedError):
    """One row holds impossible values: that of ``thread_id``, as far as that can be read."""

    def __init__(self, message: str, *, thread_id: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint, reason="impossible values")
        self.thread_id = thread_id


class DatabaseUnavailableError(DatabaseError):
    """The database's server can't be reached, or the connection to it was lost."""

    code = "unavailable"
    exit_code = 4


class DatabaseUnwritableError(DatabaseError):
    """The file can't be made or written: no permission, a read-only or full disk, no more files."""

    code = "unwritable"


class DatabaseVersionError(DatabaseError):
    """The database was written by a newer release of Rollbook and is left as it is."""

    code = "newer_database"
