"""The readable rows of a table of a damaged SQLite database, by the names of their columns."""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from rollbook.store.engine import Transaction

_TYPES = {"INTEGER": int, "TEXT": str, "BLOB": bytes, "REAL": float}


def readable_rows(tx: Transaction, table: str, damaged: Path) -> Iterator[dict[str, Any]]:
    """Read what can be read of a table, which a new database has, too, out of a damaged file.

    ``tx`` is a transaction of the new one.  The file must be out of use; see :class:`Salvage`.
    """
    from rollbook.store.salvage import Salvage

    columns = tx.query(
        'SELECT name, type, "notnull", pk FROM pragma_table_info(:table) ORDER BY cid',
        {"table": table},
    )
    has_row_id = [kind == "INTEGER" and bool(key) for _, kind, _, key in columns]
    accepts = [
        (NoneType,) if is_row_id else (_TYPES[kind],) if required else (_TYPES[kind], NoneType)
        for is_row_id, (_, kind, required, _) in zip(has_row_id, columns, strict=True)
    ]
    names = [name for name, *_ in columns]
    for row_id, values in Salvage(damaged, accepts):
        row = dict(zip(names, values, strict=True))
        if any(has_row_id):
            row[names[has_row_id.index(True)]] = row_id
        yield row
