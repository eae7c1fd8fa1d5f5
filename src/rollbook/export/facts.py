"""What is told of a thread at the head of a document."""

from collections.abc import Iterator
from datetime import datetime

from rollbook.model.thread import ThreadMetadata


def heading_of(thread: ThreadMetadata) -> str:
    """Choose what a thread is called: its name, else its title, on one line."""
    return " ".join((thread.name or thread.title)[:300].split()) or "A thread"


def facts_of(thread: ThreadMetadata) -> Iterator[tuple[str, str]]:
    """Give what is known of a thread and not empty, each with its label."""
    facts = (
        ("Thread", thread.id),
        ("Created", time_text(thread.created_at)),
        ("Last turn", time_text(thread.recency_at)),
        ("Directory", thread.cwd),
        ("Git", " ".join(filter(None, (thread.git_branch, thread.git_sha)))),
        ("Model", " ".join(filter(None, (thread.model, thread.reasoning_effort)))),
        ("Forked from", thread.forked_from_id),
        ("Parent", thread.parent_thread_id),
        ("Made by", " ".join(filter(None, (thread.originator, thread.cli_version)))),
    )
    for label, value in facts:
        if value:
            yield label, value


def time_text(time: datetime | None) -> str:
    """Write a time for people, in UTC, as they may be anywhere."""
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"
