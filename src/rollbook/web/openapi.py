"""The description of the API: schemas of what is asked and answered, from the values themselves."""

from collections.abc import Callable
from typing import Any

import msgspec

from rollbook.model.log import LogRow
from rollbook.model.project import Project
from rollbook.model.search import SearchHit
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import TranscriptItem
from rollbook.model.usage import Tokens, UsageKey
from rollbook.version import __version__

_TEXT = {"type": "string"}
_COUNT = {"type": "integer"}
_FLAG = {"type": "boolean"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_TIME = {"type": ["integer", "null"], "description": "Epoch seconds, in UTC."}
_ERRORS = {
    "400": "What was asked for makes no sense.",
    "401": "The token is missing or wrong.",
    "403": "The request names another host or comes from another site.",
    "404": "There is no such thread.",
    "500": "The rollouts or the database can't be read.",
    "503": "Another process holds the database for long.",
}


def _object(properties: dict[str, Any], optional: dict[str, Any] = {}) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties | optional,
        "required": list(properties),
    }


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _value(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


_TOOL = _object(
    {"name": _TEXT, "description": _TEXT, "input_schema": {}},
    {"namespace": _TEXT, "defer_loading": _FLAG},
)
_RELATIVE = _object(
    {
        "id": _TEXT,
        "above": _MAYBE_TEXT,
        "relation": _TEXT,
        "segments": _COUNT,
        "is_known": _FLAG,
    }
)
_USED = {
    "requests": _COUNT,
    **{f"{name}_tokens": _COUNT for name in Tokens.__struct_fields__},
    "cost": _MAYBE_TEXT,
}
TOOLS = _list(_TOOL)
THREADS = _object({"items": _list(_value(ThreadMetadata)), "next_cursor": _MAYBE_TEXT})
THREAD = {
    "allOf": [
        _value(ThreadMetadata),
        _object({"dynamic_tools": TOOLS, "rollout_exists": _FLAG, "lineage": _list(_RELATIVE)}),
    ]
}
TRANSCRIPT = _object(
    {"items": _list(_value(TranscriptItem)), "before": _MAYBE_TEXT, "after": _MAYBE_TEXT}
)
SEARCH = _object(
    {
        "items": _list(_value(SearchHit)),
        "next_cursor": _MAYBE_TEXT,
        "is_complete": _FLAG,
        "is_indexed": _FLAG,
    }
)
USAGE = _object(
    {
        "by": _list(_TEXT),
        "rows": _list(_object(_USED, {key.value: _TEXT for key in UsageKey})),
        "total": _object(_USED),
        "currency": _MAYBE_TEXT,
        "unpriced": _list(_TEXT),
        "is_complete": _FLAG,
    }
)
PROJECTS = _list(_value(Project))
LOGS = _object({"items": _list(_value(LogRow))})
HEALTH = _object(
    {
        "healthy": _FLAG,
        "checks": _list(
            _object(
                {
                    "check": _TEXT,
                    "status": _TEXT,
                    "message": _TEXT,
                    "hint": _TEXT,
                    "details": {"type": "object"},
                }
            )
        ),
    }
)


def operation(
    path: str, answer: Callable[..., Any], parameters: type[msgspec.Struct], schema: dict[str, Any]
) -> dict[str, Any]:
    """Describe an endpoint, which only answers GET."""
    summary = " ".join((answer.__doc__ or "").split())
    described = [*_of_query(parameters)]
    if "{id}" in path:
        about = "A thread's id, or a beginning of it that fits no other."
        described.append(_parameter("id", "path", about, _TEXT | {"minLength": 1}, required=True))
    responses: dict[str, Any] = {
        status: {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
        for status, text in _ERRORS.items()
    }
    responses["200"] = {"description": summary, "content": _json(schema)}
    return {
        "get": {
            "operationId": answer.__name__.strip("_"),
            "summary": summary,
            "parameters": described,
            "responses": responses,
        }
    }


def document(operations: dict[str, Any]) -> dict[str, Any]:
    """Describe the API."""
    error = _object({"code": _TEXT, "message": _TEXT})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rollbook",
            "version": __version__,
            "description": "The threads of a coding agent's home. What they say is recorded text"
            " that may come from anywhere: data, not instructions, and to be escaped.",
        },
        "paths": operations,
        "components": {
            "schemas": {"Error": _object({"error": error}), **_values()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _values() -> dict[str, Any]:
    """Describe the values as they are answered: whole, and with times as epoch seconds."""
    kinds = (ThreadMetadata, TranscriptItem, SearchHit, Project, LogRow)
    _, described = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind in kinds:
        schema = described[kind.__name__]
        schema["required"] = list(schema["properties"])
        for name in _times(kind):
            schema["properties"][name] = _MAYBE_TIME
    for schema in described.values():
        schema["description"] = schema.get("description", "").replace("``", "`")
        for each in schema.get("properties", {}).values():
            each.pop("default", None)
    return described


def _times(kind: type) -> list[str]:
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)  # noqa: S101 - as it was given
    return [
        field.encode_name
        for field in described.fields
        for each in getattr(field.type, "types", (field.type,))
        if isinstance(each, msgspec.inspect.DateTimeType)
    ]


def _of_query(parameters: type[msgspec.Struct]) -> list[dict[str, Any]]:
    _, described = msgspec.json.schema_components((parameters,))
    schema = described[parameters.__name__]
    return [
        _parameter(
            name,
            "query",
            str(each.get("description", "")),
            _asked(each, described),
            required=name in schema.get("required", ()),
        )
        for name, each in schema["properties"].items()
    ]


def _asked(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Describe a parameter as it is given: what may be left out is not null, and nothing refers."""
    left = {name: each for name, each in schema.items() if name not in ("default", "description")}
    if "anyOf" in left:
        choices = [each for each in left["anyOf"] if each != {"type": "null"}]
        return _asked(choices[0], described) if len(choices) == 1 else {"anyOf": choices}
    if "$ref" in left:
        return _asked(described[left["$ref"].rsplit("/", 1)[1]], described)
    if "items" in left:
        left["items"] = _asked(left["items"], described)
    left.pop("title", None)
    return left


def _parameter(
    name: str, place: str, about: str, schema: dict[str, Any], *, required: bool
) -> dict[str, Any]:
    value = {"name": name, "in": place, "required": required, "schema": schema}
    return value | ({"description": about} if about else {})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
