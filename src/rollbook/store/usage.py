"""What threads have used, by quarters of an hour and model."""

from collections.abc import Collection, Iterable

import msgspec

from rollbook.model.usage import Tokens
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

COLUMNS = ("requests", *Tokens.__struct_fields__)
_STATEMENTS = {
    name: sql.format(
        columns=", ".join(COLUMNS),
        values=", ".join(f":{column}" for column in COLUMNS),
        sums=", ".join(f"{column} = usage.{column} + excluded.{column}" for column in COLUMNS),
        among="{among}",
        used="{used}",
        totals=", ".join(f"CAST(sum({column}) AS bigint)" for column in COLUMNS),
    )
    for name, sql in load("usage.sql").items()
}


# A thread that several hosts have copies of has used what the longest says.
_OF_COPIES = f"""(SELECT thread_id, bucket, model,
    {", ".join(f"max({column}) AS {column}" for column in COLUMNS)}
    FROM usage GROUP BY thread_id, bucket, model) AS copies"""


class Used(msgspec.Struct, frozen=True):
    """What was used in a quarter of an hour (its beginning in epoch seconds) by a model."""

    bucket: int
    model: str
    requests: int
    tokens: Tokens
    thread_id: str = ""


def add(tx: Transaction, thread_id: str, file_id: int, used: Iterable[Used]) -> None:
    """Add what a rollout has used to what it had used before."""
    rows = [
        {
            "thread_id": thread_id,
            "file_id": file_id,
            "bucket": each.bucket,
            "model": each.model,
            "requests": each.requests,
            **dict(zip(COLUMNS[1:], msgspec.structs.astuple(each.tokens), strict=True)),
        }
        for each in used
    ]
    tx.execute_many(_STATEMENTS["add"], rows)


def delete(tx: Transaction, file_id: int) -> None:
    """Forget what a rollout has used."""
    tx.execute(_STATEMENTS["delete"], {"file_id": file_id})


def of_threads(tx: Transaction, thread_ids: Collection[str]) -> list[Row]:
    """Read what some threads have used: thread, bucket, model and sums, in order."""
    sql = _STATEMENTS["of_threads"].format(among=tx.in_list("thread_id", "ids"))
    return tx.query(sql, {"ids": tx.list_value(list(thread_ids))})


def between(tx: Transaction, since: int, until: int, *, by_thread: bool) -> list[Used]:
    """Read what was used in some time (epoch seconds), of each thread or of all together."""
    used = _OF_COPIES if "host" in tx.thread_key else "usage"
    sql = _STATEMENTS["by_thread" if by_thread else "of_all"].format(used=used)
    return [
        Used(bucket, model, requests, Tokens(*tokens), thread_id)
        for thread_id, bucket, model, requests, *tokens in tx.query(
            sql, {"since": since, "until": until}
        )
    ]
