"""The lists: of threads, and of the projects that they belong to."""

from starlette.requests import Request
from starlette.responses import Response

from rollbook.web.parameters import ThreadsParameters, read_parameters
from rollbook.web.site import page, site_of

_PATIENCE_S = 0.5  # with a home that was never indexed; what comes later appears by itself
_SOURCES = ("cli", "vscode", "exec", "mcp")


def threads_page(request: Request) -> Response:
    """Show threads, newest first, those that were asked for."""
    asked = read_parameters(ThreadsParameters, request, of_form=True)
    state = site_of(request).state
    found = asked.find(state, _PATIENCE_S)
    return page(
        request,
        "threads.html.jinja",
        asked=asked,
        threads=found.items,
        next_cursor=found.next_cursor,
        sources=_SOURCES,
        is_synced=state.is_synced(),
    )


def projects_page(request: Request) -> Response:
    """Show the projects, the one with the latest turn first."""
    return page(request, "projects.html.jinja", projects=site_of(request).state.projects())
