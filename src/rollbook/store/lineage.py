"""Which threads descend from which: from the one that has it made, or from the one it was forked from."""

from collections.abc import Collection

from rollbook.model.thread import clean_text
from rollbook.store.engine import Transaction
from rollbook.store.statements import load

_STATEMENTS = load("lineage.sql")


def ancestor(tx: Transaction, thread_id: str) -> str | None:
    """Read which thread stands above one; None where none does, and for an unknown thread."""
    for parent, source in tx.query(_STATEMENTS["links"], {"id": thread_id}):
        return parent or source or None
    return None


def subagents(tx: Transaction, thread_ids: Collection[str]) -> list[tuple[str, str]]:
    """Read the threads whose parent is one of some: each with its parent."""
    return _of(tx, "subagents", "of_parents", "parent_thread_id", thread_ids)


def forks(tx: Transaction, thread_ids: Collection[str]) -> list[tuple[str, str]]:
    """Read the threads that were forked from one of some: each with what it was forked from."""
    return _of(tx, "forks", "of_sources", "forked_from_id", thread_ids)


def _of(
    tx: Transaction, statement: str, condition: str, column: str, thread_ids: Collection[str]
) -> list[tuple[str, str]]:
    sql = _STATEMENTS[statement].format(**{condition: tx.in_list(column, "ids")})
    return tx.query(sql, {"ids": tx.list_value(list(map(clean_text, thread_ids)))})
