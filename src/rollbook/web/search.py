"""The search: messages that say something."""

from starlette.requests import Request
from starlette.responses import Response

from rollbook.model.search import ROLES, SearchPage
from rollbook.runtime import StateRuntime
from rollbook.web.parameters import SearchParameters, read_parameters
from rollbook.web.site import page, site_of


def search_page(request: Request) -> Response:
    """Show the search, and what was found."""
    if not request.query_params.get("q", "").strip():
        return page(request, "search.html.jinja", asked=None, found=None, roles=ROLES)
    asked = read_parameters(SearchParameters, request, of_form=True)
    found = search(site_of(request).state, asked)
    return page(request, "search.html.jinja", asked=asked, found=found, roles=ROLES)


def search(state: StateRuntime, asked: SearchParameters) -> SearchPage:
    """Find what was asked for."""
    return state.search(
        asked.q,
        limit=asked.limit,
        cursor=asked.cursor,
        sort=asked.sort,
        substring=asked.substring,
        roles=asked.roles or ("user", "assistant"),
        **asked.arguments(state),
    )
