"""The application: which address is answered by what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from rollbook.errors import (
    DatabaseBusyError,
    ForbiddenError,
    RollbookError,
    ThreadInUseError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.runtime import StateRuntime
from rollbook.web import api, health, logs, search, thread, threads, usage
from rollbook.web.assets import send_asset
from rollbook.web.guard import Door, Guard, error_response
from rollbook.web.live import Live
from rollbook.web.parameters import LogsOf
from rollbook.web.site import Site, site_of

_STATUSES: dict[type[RollbookError], int] = {
    ForbiddenError: 403,
    UsageError: 400,
    ThreadNotFoundError: 404,
    ThreadInUseError: 409,
    DatabaseBusyError: 503,
}


def make_app(state: StateRuntime, door: Door, live: Live) -> ASGIApp:
    """Make the application that serves a state to whoever comes in by the door.

    It watches the home as long as it runs, and brings its index up to date.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        running = asyncio.create_task(live.run())
        yield
        live.stop()
        await running

    app = Starlette(
        routes=[
            Route("/", threads.threads_page),
            Route("/projects", threads.projects_page),
            Route("/threads/{id}", thread.thread_page),
            Route("/threads/{id}/items/{position}", thread.item_page),
            Route("/threads/{id}/export", thread.export),
            Route("/threads/{id}/rename", thread.rename, methods=["POST"]),
            Route("/threads/{id}/archive", thread.archive, methods=["POST"]),
            Route("/threads/{id}/unarchive", thread.unarchive, methods=["POST"]),
            Route("/search", search.search_page),
            Route("/usage", usage.usage_page),
            Route("/logs", logs.logs_page),
            Route("/health", health.health_page),
            Route("/events", events),
            Route("/assets/{digest}/{name}", send_asset),
            *api.routes,
        ],
        exception_handlers={RollbookError: _failed, HTTPException: _not_answered},
        lifespan=lifespan,
    )
    app.state.site = Site(state, door, live)
    return Guard(app, door)


class _Server(uvicorn.Server):
    """Ends when it is told to, without waiting for the pages that are open."""

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, as soon as what was asked before is answered; to ask again changes nothing."""
        del sig, frame
        self.should_exit = True
        self._live.stop()


def make_server(app: ASGIApp, live: Live) -> uvicorn.Server:
    """Make the server of an application, for sockets that listen already."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    return _Server(config, live)


async def events(request: Request) -> Response:
    """Send what changes, as long as the page is open."""
    site = site_of(request)
    asked = request.query_params
    seen = request.headers.get("last-event-id", asked.get("seen", ""))
    try:
        logs = LogsOf(asked["logs"]) if "logs" in asked else None
    except ValueError as error:
        raise UsageError(f"there are no such logs: {error}") from error
    stream = site.live.events(seen, logs)
    return StreamingResponse(stream, media_type="text/event-stream")


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RollbookError)  # noqa: S101 - as it is registered
    status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500)
    return error_response(request.url.path, status, error.code, str(error))


def _not_answered(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as it is registered
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "failed")
    response = error_response(request.url.path, error.status_code, code, f"{error.detail}.")
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response
