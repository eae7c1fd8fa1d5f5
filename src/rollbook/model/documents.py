"""Values as JSON documents that are safe to look at: those of the commands and of the HTTP API."""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from rollbook.model.paging import ThreadsPage
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata
from rollbook.model.times import to_epoch

if TYPE_CHECKING:
    from rollbook.model.lineage import LineageNode
    from rollbook.model.search import SearchPage
    from rollbook.model.transcript import TranscriptPage
    from rollbook.model.usage import UsageReport, UsageRow

# Control characters that JSON leaves as they are, and those that change the direction of text.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

# What would control a terminal, or turn text around, when somebody looks at the document.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def to_json(value: Any) -> str:
    """Write one JSON document, without a character that would do something to a terminal."""
    text = msgspec.json.encode(value).decode()
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def without_controls(text: str) -> str:
    """Take from a document, of many lines, what would do something to whoever looks at it."""
    return _CONTROLS.sub("\ufffd", text)


def as_object(value: msgspec.Struct) -> dict[str, Any]:
    """Make the JSON object of a value: its fields, with times as epoch seconds."""
    return {
        field: to_epoch(each) if isinstance(each, datetime) else each
        for field, each in msgspec.structs.asdict(value).items()
    }


def threads_object(page: ThreadsPage) -> dict[str, Any]:
    """Make the JSON object of a page of threads."""
    return {
        "items": [as_object(thread) for thread in page.items],
        "next_cursor": page.next_cursor,
    }


def thread_object(
    thread: ThreadMetadata,
    tools: list[DynamicToolSpec],
    tree: "LineageNode",
    *,
    rollout_exists: bool,
) -> dict[str, Any]:
    """Make the JSON object of all that is known of a thread."""
    return as_object(thread) | {
        "dynamic_tools": [tool_object(tool) for tool in tools],
        "rollout_exists": rollout_exists,
        "lineage": lineage_objects(tree),
    }


def tool_object(tool: DynamicToolSpec) -> dict[str, Any]:
    """Make the JSON object of a dynamic tool; what only later releases have is there if set."""
    value: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
    }
    if tool.namespace is not None:
        value["namespace"] = tool.namespace
    if tool.defer_loading:
        value["defer_loading"] = True
    return value


def lineage_objects(tree: "LineageNode") -> list[dict[str, Any]]:
    """Make the JSON objects of a tree: each thread before those below it, and below which it is."""
    objects: list[dict[str, Any]] = []
    above: list[str] = []
    for depth, node in tree.walk():
        del above[depth:]
        objects.append(
            {
                "id": node.id,
                "above": above[-1] if above else None,
                "relation": node.relation.value,
                "segments": node.segments,
                "is_known": node.thread is not None,
            }
        )
        above.append(node.id)
    return objects


def transcript_object(page: "TranscriptPage") -> dict[str, Any]:
    """Make the JSON object of a page of a thread."""
    items = [as_object(item) for item in page.items]
    return {"items": items, "before": page.before, "after": page.after}


def search_object(page: "SearchPage") -> dict[str, Any]:
    """Make the JSON object of a page of hits."""
    return {
        "items": [as_object(hit) | {"thread": as_object(hit.thread)} for hit in page.hits],
        "next_cursor": page.next_cursor,
        "is_complete": page.is_complete,
        "is_indexed": page.is_indexed,
    }


def usage_object(report: "UsageReport") -> dict[str, Any]:
    """Make the JSON object of a report; costs are texts, as they are exact."""
    return {
        "by": report.by,
        "rows": [
            dict(zip(report.by, row.keys, strict=True)) | usage_row_object(row)
            for row in report.rows
        ],
        "total": usage_row_object(report.total),
        "currency": report.currency or None,
        "unpriced": report.unpriced,
        "is_complete": report.is_complete,
    }


def usage_row_object(row: "UsageRow") -> dict[str, Any]:
    """Make the JSON object of a row, without its keys."""
    tokens = msgspec.structs.asdict(row.tokens)
    counts = {f"{name}_tokens": count for name, count in tokens.items()}
    return {"requests": row.requests, **counts, "cost": None if row.cost is None else str(row.cost)}
