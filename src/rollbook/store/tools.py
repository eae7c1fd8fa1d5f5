"""Dynamic tools in the database: written once per thread, never changed (behaviour.md 24 to 27)."""

from collections.abc import Collection, Sequence

import msgspec

from rollbook.errors import DamagedRowError, ThreadNotFoundError, UsageError
from rollbook.model.thread import DynamicToolSpec, clean_text
from rollbook.store import threads
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

COLUMNS = (
    "thread_id",
    "position",
    "name",
    "description",
    "input_schema",
    "defer_loading",
    "namespace",
)
_STATEMENTS = load("tools.sql")


def get(tx: Transaction, thread_id: str, host: str | None = None) -> list[DynamicToolSpec]:
    """Read a thread's tools in order; empty where there are none.

    ``host`` says whose, in a database of many hosts.

    Errors: DamagedRowError where a stored schema isn't JSON, UsageError where it is nested deeper
    than the caller's stack has room for.
    """
    return [
        DynamicToolSpec(
            name=name,
            description=description,
            input_schema=_schema(schema, thread_id),
            defer_loading=bool(defer_loading),
            namespace=namespace,
        )
        for name, description, schema, defer_loading, namespace in tx.query(
            _STATEMENTS["list"].format(of_host="" if host is None else "AND host = :host"),
            {"thread_id": thread_id, "host": host},
        )
    ]


def rows_of(tx: Transaction, thread_ids: Collection[str]) -> list[Row]:
    """Read the tools of some threads as they are stored, thread by thread, in order."""
    sql = _STATEMENTS["of_threads"].format(
        columns=", ".join(COLUMNS), among=tx.in_list("thread_id", "ids")
    )
    return tx.query(sql, {"ids": tx.list_value(list(thread_ids))})


def put_first(tx: Transaction, thread_id: str, tools: Sequence[DynamicToolSpec]) -> None:
    """Store all of a thread's tools, unless it has some already: the first writer wins.

    Errors: ThreadNotFoundError where the thread isn't known (behaviour.md 26), UsageError for a
    schema that is no JSON.
    """
    if not tools or tx.query(_STATEMENTS["any"], {"thread_id": thread_id}):
        return
    if not threads.exists(tx, thread_id):
        raise ThreadNotFoundError(
            f"there is no thread {thread_id} to keep tools for", hint="store the thread first"
        )
    tx.execute_many(
        _STATEMENTS["insert"],
        [
            {
                "thread_id": thread_id,
                "position": position,
                "name": _text(tool.name),
                "description": _text(tool.description),
                "input_schema": _schema_text(tool),
                "defer_loading": int(tool.defer_loading),
                "namespace": tool.namespace,
            }
            for position, tool in enumerate(tools)
        ],
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"name and description of a tool are texts, not {value!r:.100}")
    return clean_text(value)


def _schema_text(tool: DynamicToolSpec) -> str:
    try:
        return msgspec.json.encode(tool.input_schema).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the schema of the tool {tool.name[:100]!r} is no JSON: {error!s:.100}"
        ) from error


def _schema(text: str, thread_id: str) -> object:
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:  # no damage: from elsewhere it can be read
        raise UsageError(
            f"a tool schema of thread {thread_id} is nested too deep to be read from here"
        ) from error
    except msgspec.DecodeError as error:
        raise DamagedRowError(
            f"a stored tool schema of thread {thread_id} is not JSON",
            thread_id=thread_id,
            hint="run `rollbook sync --rebuild`",
        ) from error
