"""Rollbook: the threads of a Codex home, indexed from their rollouts.

>>> from rollbook import StateRuntime
>>> with StateRuntime.open("~/.codex") as state:  # doctest: +SKIP
...     state.sync()
...     page = state.list_threads(20)
"""

from rollbook import items
from rollbook.aio import AsyncStateRuntime
from rollbook.errors import RollbookError
from rollbook.git import GitFacts
from rollbook.loghandler import RollbookHandler, thread_context
from rollbook.logs.reader import LogReader
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.model.outcome import BackfillStats, RolloutFailure, SyncProgress, WatchUpdate
from rollbook.model.paging import Anchor, SortKey, ThreadsPage, format_cursor, parse_cursor
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata, ThreadMetadataBuilder
from rollbook.recorder.aio import AsyncRolloutRecorder
from rollbook.recorder.recorder import RolloutRecorder
from rollbook.rollout.history import conversation
from rollbook.rollout.lines import RolloutItem
from rollbook.runtime import StateRuntime
from rollbook.version import __version__

__all__ = [
    "Anchor",
    "AsyncRolloutRecorder",
    "AsyncStateRuntime",
    "BackfillStats",
    "DynamicToolSpec",
    "GitFacts",
    "LogEntry",
    "LogLimits",
    "LogQuery",
    "LogReader",
    "LogRow",
    "RollbookError",
    "RollbookHandler",
    "RolloutFailure",
    "RolloutItem",
    "RolloutRecorder",
    "SortKey",
    "StateRuntime",
    "SyncProgress",
    "ThreadMetadata",
    "ThreadMetadataBuilder",
    "ThreadsPage",
    "WatchUpdate",
    "__version__",
    "conversation",
    "format_cursor",
    "items",
    "parse_cursor",
    "thread_context",
]
