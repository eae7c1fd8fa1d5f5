"""The state of the home, as ``rollbook doctor`` sees it."""

from starlette.requests import Request
from starlette.responses import Response

from rollbook.doctor.checks import examine_home
from rollbook.web.site import page, site_of


def health_page(request: Request) -> Response:
    """Show what was found when the home was looked at just now."""
    state = site_of(request).state
    report = examine_home(state.codex_home, state.own_database)
    return page(request, "health.html.jinja", report=report, degraded=state.degraded)
