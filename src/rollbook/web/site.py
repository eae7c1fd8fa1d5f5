"""What answers have in common: the state, the way in, and how a page is put together."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse

from rollbook.runtime import StateRuntime
from rollbook.web.guard import Door
from rollbook.web.live import Live
from rollbook.web.rendering import rendered

_THEME = "rollbook-theme"


class Site(msgspec.Struct, frozen=True):
    """What is served, and how it is reached."""

    state: StateRuntime
    door: Door
    live: Live


def site_of(request: Request) -> Site:
    """Give the site that a request is for; the version is that before anything was looked up."""
    site = request.app.state.site
    assert isinstance(site, Site)  # noqa: S101 - set by the server
    if not hasattr(request.state, "version"):
        request.state.version = site.live.version
    return site


def page(request: Request, template: str, **values: Any) -> HTMLResponse:
    """Answer with a page."""
    site = site_of(request)
    theme = request.cookies.get(_THEME, "")
    return HTMLResponse(
        rendered(
            template,
            site=site,
            version=request.state.version,
            path=request.url.path,
            theme=theme if theme in ("light", "dark") else "",
            **values,
        )
    )
