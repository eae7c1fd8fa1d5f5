"""The HTTP API: what the commands answer with ``--json``, to be read only.

Each endpoint stands in one table, of which both the routes and their description are made.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rollbook.doctor.checks import examine_home
from rollbook.model.documents import (
    as_object,
    search_object,
    thread_object,
    threads_object,
    to_json,
    tool_object,
    transcript_object,
    usage_object,
)
from rollbook.model.prices import find_prices
from rollbook.model.times import find_time_zone
from rollbook.runtime import StateRuntime
from rollbook.web import openapi
from rollbook.web.log_rows import find_rows
from rollbook.web.parameters import (
    LogsParameters,
    NoParameters,
    SearchParameters,
    ThreadsParameters,
    TranscriptParameters,
    UsageParameters,
    read_parameters,
)
from rollbook.web.site import site_of
from rollbook.web.thread import thread_of

_PREFIX = "/api/v1"


def _threads(request: Request, asked: ThreadsParameters) -> Any:
    """List threads, newest first."""
    return threads_object(asked.find(_state(request)))


def _thread(request: Request, asked: NoParameters) -> Any:
    """Tell all that is known of a thread: its metadata, tools, and the tree that it belongs to."""
    del asked
    state, thread = _state(request), thread_of(request)
    tools = state.get_dynamic_tools(thread.id) or []
    tree = state.lineage(thread.id)
    return thread_object(thread, tools, tree, rollout_exists=state.rollout_exists(thread))


def _tools(request: Request, asked: NoParameters) -> Any:
    """List the dynamic tools of a thread, in the order they were given."""
    del asked
    tools = _state(request).get_dynamic_tools(thread_of(request).id) or []
    return [tool_object(tool) for tool in tools]


def _items(request: Request, asked: TranscriptParameters) -> Any:
    """Read what was said and done in a thread, oldest first: its end, or around a position."""
    return transcript_object(asked.find(_state(request), thread_of(request).id))


def _search(request: Request, asked: SearchParameters) -> Any:
    """Find messages by what they say."""
    return search_object(asked.find(_state(request)))


def _usage(request: Request, asked: UsageParameters) -> Any:
    """Add up the tokens that threads have used."""
    state = _state(request)
    report = state.usage(
        asked.by,
        time_zone=find_time_zone(asked.time_zone),
        prices=find_prices(state.codex_home),
        **asked.arguments(state),
    )
    return usage_object(report)


def _projects(request: Request, asked: NoParameters) -> Any:
    """List the projects that threads belong to, the one with the latest turn first."""
    del asked
    return [as_object(project) for project in _state(request).projects()]


def _logs(request: Request, asked: LogsParameters) -> Any:
    """Read log rows, oldest first: the last ones, or those before or after an id."""
    return {"items": [as_object(row) for row in find_rows(_state(request), asked)]}


def _health(request: Request, asked: NoParameters) -> Any:
    """Say what state the home is in, as `rollbook doctor` does."""
    del asked
    state = _state(request)
    return examine_home(state.codex_home, state.own_database).as_object()


_ENDPOINTS: dict[str, tuple[Callable[[Request, Any], Any], type[msgspec.Struct], Any]] = {
    "/threads": (_threads, ThreadsParameters, openapi.THREADS),
    "/threads/{id}": (_thread, NoParameters, openapi.THREAD),
    "/threads/{id}/tools": (_tools, NoParameters, openapi.TOOLS),
    "/threads/{id}/items": (_items, TranscriptParameters, openapi.TRANSCRIPT),
    "/search": (_search, SearchParameters, openapi.SEARCH),
    "/usage": (_usage, UsageParameters, openapi.USAGE),
    "/projects": (_projects, NoParameters, openapi.PROJECTS),
    "/logs": (_logs, LogsParameters, openapi.LOGS),
    "/health": (_health, NoParameters, openapi.HEALTH),
}


def _route(
    path: str, answer: Callable[[Request, Any], Any], parameters: type[msgspec.Struct]
) -> Route:
    def endpoint(request: Request) -> Response:
        return _json(answer(request, read_parameters(parameters, request)))

    return Route(_PREFIX + path, endpoint, name=answer.__name__.strip("_"))


def _description(request: Request) -> Response:
    del request
    operations = {
        _PREFIX + path: openapi.operation(path, answer, parameters, schema)
        for path, (answer, parameters, schema) in _ENDPOINTS.items()
    }
    return _json(openapi.document(operations))


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _state(request: Request) -> StateRuntime:
    return site_of(request).state


routes = [
    Route(f"{_PREFIX}/openapi.json", _description),
    *(_route(path, answer, parameters) for path, (answer, parameters, _) in _ENDPOINTS.items()),
]
