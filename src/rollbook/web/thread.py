"""One thread: what was said and done in it, what is known of it, and what can be done with it."""

from itertools import chain
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from rollbook.errors import RolloutError, ThreadNotFoundError, UsageError
from rollbook.export.blocks import is_folded
from rollbook.export.documents import DocumentFormat, thread_document
from rollbook.export.facts import heading_of
from rollbook.export.highlighting import highlighted
from rollbook.export.html import item_html
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata
from rollbook.model.transcript import TranscriptItem, TranscriptPage
from rollbook.selection import find_thread
from rollbook.web.guard import read_form
from rollbook.web.parameters import TranscriptParameters, read_parameters
from rollbook.web.rendering import local_time
from rollbook.web.site import page, site_of

_LONGEST_FOLDED = 4_000  # characters: some screens
_LONGEST_MESSAGE = 20_000
_MOST_RELATIVES = 200
_MEDIA_TYPES = {
    DocumentFormat.MARKDOWN: "text/markdown",
    DocumentFormat.HTML: "text/html",
    DocumentFormat.JSON: "application/json",
}


def thread_page(request: Request) -> Response:
    """Show a thread: its last items, or those that were asked for."""
    state = site_of(request).state
    asked = read_parameters(TranscriptParameters, request, of_form=True)
    found = thread_of(request)
    try:
        items = asked.find(state, found.id)
        problem = ""
    except RolloutError as error:  # all else that is known is shown
        items, problem = TranscriptPage([]), str(error)
    relatives, relatives_count = state.lineage(found.id).around(found.id, _MOST_RELATIVES)
    return page(
        request,
        "thread.html.jinja",
        thread=found,
        items=[_item(found.id, item) for item in items.items],
        before=items.before,
        after=items.after,
        last=items.items[-1].position if items.items else asked.after,
        is_end=asked.at is None and asked.before is None and items.after is None,
        relatives=relatives if relatives_count > 1 else [],
        relatives_count=relatives_count,
        tools=[_tool(tool) for tool in state.get_dynamic_tools(found.id) or []],
        problem=problem,
        rollout_exists=state.rollout_exists(found) or state.is_elsewhere(found),
        is_elsewhere=state.is_elsewhere(found),
        formats=list(DocumentFormat),
    )


def thread_of(request: Request) -> ThreadMetadata:
    """Find the thread that an address names.

    Errors: ThreadNotFoundError, AmbiguousIdError.
    """
    return find_thread(site_of(request).state, request.path_params["id"])


def item_page(request: Request) -> Response:
    """Show one item as a whole."""
    found = thread_of(request)
    position = request.path_params["position"]
    items = site_of(request).state.read_thread(found.id, limit=1, at=position).items
    if not items or items[0].position != position:
        raise ThreadNotFoundError(f"thread {found.id} has nothing at {position[:100]!r}")
    item = item_html(items[0], is_open=True, clock=local_time)
    return page(request, "item.html.jinja", thread=found, item=item, position=position)


def export(request: Request) -> Response:
    """Send a thread as a document, to be saved."""
    found = thread_of(request)
    try:
        form = DocumentFormat(request.query_params.get("format", DocumentFormat.MARKDOWN))
    except ValueError as error:
        raise UsageError("threads are exported as markdown, html or json") from error
    pieces = thread_document(site_of(request).state, found.id, form)
    first = next(pieces)  # so that what can't be read is an error, not half a document
    name = quote(f"{' '.join(heading_of(found)[:60].split())} {found.id[:8]}{form.suffix}")
    return StreamingResponse(
        chain([first], pieces),
        media_type=_MEDIA_TYPES[form],
        headers={"content-disposition": f"attachment; filename*=UTF-8''{name}"},
    )


async def rename(request: Request) -> Response:
    """Give a thread a name, or take it back where the field was left empty."""
    form = await read_form(request, site_of(request).door)
    name = form.get("name", "").strip()
    return await _changed(request, site_of(request).state.rename_thread, name or None)


async def archive(request: Request) -> Response:
    """Archive a thread."""
    await read_form(request, site_of(request).door)
    return await _changed(request, site_of(request).state.archive_thread)


async def unarchive(request: Request) -> Response:
    """Bring a thread back from the archive."""
    await read_form(request, site_of(request).door)
    return await _changed(request, site_of(request).state.unarchive_thread)


async def _changed(request: Request, change: Any, *arguments: Any) -> Response:
    found = await run_in_threadpool(thread_of, request)
    await run_in_threadpool(change, found.id, *arguments)
    return RedirectResponse(f"/threads/{found.id}", 303)


def _item(thread_id: str, item: TranscriptItem) -> Markup:
    longest = _LONGEST_FOLDED if is_folded(item) else _LONGEST_MESSAGE
    whole = f"/threads/{thread_id}/items/{quote(item.position, safe='')}"
    return item_html(item, longest=longest, whole=whole, clock=local_time)


def _tool(tool: DynamicToolSpec) -> tuple[DynamicToolSpec, Markup]:
    schema = msgspec.json.format(msgspec.json.encode(tool.input_schema), indent=2)
    return tool, highlighted(schema.decode()[:_LONGEST_MESSAGE], "json")
