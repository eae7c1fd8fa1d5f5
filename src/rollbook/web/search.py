"""The search: messages that say something."""

from starlette.requests import Request
from starlette.responses import Response

from rollbook.web.parameters import SearchParameters, read_parameters
from rollbook.web.site import page, site_of


def search_page(request: Request) -> Response:
    """Show the search, and what was found."""
    if not request.query_params.get("q", "").strip():
        return page(request, "search.html.jinja", asked=None, found=None)
    asked = read_parameters(SearchParameters, request, of_form=True)
    found = asked.find(site_of(request).state)
    return page(request, "search.html.jinja", asked=asked, found=found)
