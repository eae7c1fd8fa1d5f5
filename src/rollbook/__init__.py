"""Rollbook: the threads of a Codex home, indexed from their rollouts.

>>> from rollbook import StateRuntime
>>> with StateRuntime.open("~/.codex") as state:  # doctest: +SKIP
...     state.sync()
...     page = state.list_threads(20)
"""

from typing import TYPE_CHECKING

from rollbook.errors import RollbookError
from rollbook.version import __version__

__all__ = [
    "Anchor",
    "AsyncRolloutRecorder",
    "AsyncStateRuntime",
    "BackfillStats",
    "DeletedThread",
    "DeletionReport",
    "DynamicToolSpec",
    "GitFacts",
    "ItemKind",
    "LineageNode",
    "LogEntry",
    "LogLimits",
    "LogQuery",
    "LogReader",
    "LogRow",
    "Prices",
    "Project",
    "Relation",
    "RollbookError",
    "RollbookHandler",
    "RolloutFailure",
    "RolloutItem",
    "RolloutRecorder",
    "SearchHit",
    "SearchPage",
    "SearchSort",
    "SortKey",
    "StateRuntime",
    "SyncProgress",
    "SyncStage",
    "TextScope",
    "ThreadMetadata",
    "ThreadMetadataBuilder",
    "ThreadsPage",
    "Tokens",
    "TranscriptItem",
    "TranscriptPage",
    "UsageKey",
    "UsageReport",
    "UsageRow",
    "WatchUpdate",
    "__version__",
    "conversation",
    "format_cursor",
    "items",
    "parse_cursor",
    "read_prices",
    "thread_context",
]

if TYPE_CHECKING:
    from rollbook import items
    from rollbook.aio import AsyncStateRuntime
    from rollbook.git import GitFacts
    from rollbook.loghandler import RollbookHandler, thread_context
    from rollbook.logs.reader import LogReader
    from rollbook.model.deletion import DeletedThread, DeletionReport
    from rollbook.model.lineage import LineageNode, Relation
    from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
    from rollbook.model.outcome import (
        BackfillStats,
        RolloutFailure,
        SyncProgress,
        SyncStage,
        WatchUpdate,
    )
    from rollbook.model.paging import Anchor, SortKey, ThreadsPage, format_cursor, parse_cursor
    from rollbook.model.prices import Prices, read_prices
    from rollbook.model.project import Project
    from rollbook.model.search import SearchHit, SearchPage, SearchSort, TextScope
    from rollbook.model.thread import DynamicToolSpec, ThreadMetadata, ThreadMetadataBuilder
    from rollbook.model.transcript import ItemKind, TranscriptItem, TranscriptPage
    from rollbook.model.usage import Tokens, UsageKey, UsageReport, UsageRow
    from rollbook.recorder.aio import AsyncRolloutRecorder
    from rollbook.recorder.recorder import RolloutRecorder
    from rollbook.rollout.history import conversation
    from rollbook.rollout.lines import RolloutItem
    from rollbook.runtime import StateRuntime
else:
    # The same names, each loaded when it is asked for: who lists threads needs no recorder.
    _DEFINED_IN = {
        "aio": ("AsyncStateRuntime",),
        "git": ("GitFacts",),
        "loghandler": ("RollbookHandler", "thread_context"),
        "logs.reader": ("LogReader",),
        "model.deletion": ("DeletedThread", "DeletionReport"),
        "model.lineage": ("LineageNode", "Relation"),
        "model.log": ("LogEntry", "LogLimits", "LogQuery", "LogRow"),
        "model.outcome": (
            "BackfillStats",
            "RolloutFailure",
            "SyncProgress",
            "SyncStage",
            "WatchUpdate",
        ),
        "model.paging": ("Anchor", "SortKey", "ThreadsPage", "format_cursor", "parse_cursor"),
        "model.prices": ("Prices", "read_prices"),
        "model.project": ("Project",),
        "model.search": ("SearchHit", "SearchPage", "SearchSort", "TextScope"),
        "model.thread": ("DynamicToolSpec", "ThreadMetadata", "ThreadMetadataBuilder"),
        "model.transcript": ("ItemKind", "TranscriptItem", "TranscriptPage"),
        "model.usage": ("Tokens", "UsageKey", "UsageReport", "UsageRow"),
        "recorder.aio": ("AsyncRolloutRecorder",),
        "recorder.recorder": ("RolloutRecorder",),
        "rollout.history": ("conversation",),
        "rollout.lines": ("RolloutItem",),
        "runtime": ("StateRuntime",),
    }
    # Commands do without these as long as they can.  A program that asks for a state gets them with
    # it, as it may have no file descriptors left when the state first needs them.
    _STATE = (
        *(
            "rollbook.content.building",
            "rollbook.content.pages",
            "rollbook.content.report",
            "rollbook.rollout.pages",
        ),
        *("rollbook.index.ahead", "rollbook.index.apply", "rollbook.index.archive"),
        *(
            "rollbook.index.backfill",
            "rollbook.index.deletion",
            "rollbook.index.lineage",
            "rollbook.index.projects",
            "rollbook.index.watch",
            "rollbook.store.salvage",
            "tempfile",
        ),
    )
    _NEEDED_LATER = {"aio": _STATE, "runtime": _STATE}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "items":
            return import_module("rollbook.items")
        for module, names in _DEFINED_IN.items():
            if name in names:
                for each in _NEEDED_LATER.get(module, ()):
                    import_module(each)
                globals()[name] = value = getattr(import_module(f"rollbook.{module}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
