"""A thread of a state as a document in one of three formats, as a stream and as a file."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rollbook.errors import ExportError, ThreadNotFoundError
from rollbook.model.documents import without_controls
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import ItemKind, TranscriptItem

if TYPE_CHECKING:
    from rollbook.export.redaction import Redactor
    from rollbook.runtime import StateRuntime

_TOOLS = (ItemKind.TOOL_CALL, ItemKind.TOOL_OUTPUT)


class DocumentFormat(StrEnum):
    """What a thread is written as."""

    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"

    @property
    def suffix(self) -> str:
        """How the names of such files end."""
        return ".md" if self is DocumentFormat.MARKDOWN else f".{self.value}"


def thread_document(
    state: "StateRuntime",
    thread_id: str,
    form: DocumentFormat,
    *,
    tools: bool = True,
    redactor: "Redactor | None" = None,
) -> Iterator[str]:
    """Write a thread, a piece at a time, so that its size doesn't matter.

    Without ``tools``, what they were given and said is left out.  A ``redactor`` is new for each
    thread, which is read twice then.

    Errors: ThreadNotFoundError, also where the rollout is gone; InvalidThreadIdError; RolloutError.
    """
    thread = state.get_thread(thread_id)
    if thread is None:
        raise ThreadNotFoundError(f"there is no thread {thread_id} in {state.codex_home}")
    if not state.rollout_exists(thread) and not state.is_elsewhere(thread):
        raise ThreadNotFoundError(
            f"the rollout of thread {thread.id} is gone from {thread.rollout_path}",
            hint="`rollbook sync` takes it out of the index",
        )
    items: Iterable[TranscriptItem] = state.read_whole_thread(thread.id)
    if redactor is not None:
        redactor.learn(thread)
        for item in items:
            redactor.learn(item)
        thread = redactor.clean(thread)
        items = map(redactor.clean, state.read_whole_thread(thread.id))
    if not tools:
        items = (item for item in items if item.kind not in _TOOLS)
    return _document(form, thread, items)


def write_document(path: Path, pieces: Iterable[str], *, replace: bool = False) -> None:
    """Write a file for the user alone; it is there as a whole or not at all.

    Errors: ExportError where there is one already, unless it is to be replaced, and where it can't
    be written; the file that was there stays as it is then.
    """
    try:
        descriptor, hidden = tempfile.mkstemp(prefix=".rollbook-", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(pieces)
            if replace:
                os.replace(hidden, path)
            else:
                _name(hidden, path)
        finally:
            Path(hidden).unlink(missing_ok=True)
    except FileExistsError as error:
        raise ExportError(f"{path} is there already", hint="--force replaces it") from error
    except OSError as error:
        raise ExportError(f"{path} can't be written: {error.strerror}") from error


def _name(hidden: str, path: Path) -> None:
    """Give a file its name, unless another one has it."""
    try:
        os.link(hidden, path)  # unlike a rename, never replaces another one
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError from None
        os.replace(hidden, path)


def _document(
    form: DocumentFormat, thread: ThreadMetadata, items: Iterable[TranscriptItem]
) -> Iterator[str]:
    if form is DocumentFormat.JSON:
        from rollbook.export.json import document
    elif form is DocumentFormat.HTML:
        from rollbook.export.html import document
    else:
        from rollbook.export.markdown import document
    return (without_controls(piece) for piece in document(thread, items))
