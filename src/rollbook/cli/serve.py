"""``rollbook serve``: a page for the browser, and an HTTP API."""

import asyncio
import os
import sys
import tempfile
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from markupsafe import escape

from rollbook.cli import render
from rollbook.cli.listening import listen, token_of
from rollbook.cli.options import Settings, common_options
from rollbook.errors import UsageError
from rollbook.runtime import StateRuntime

if TYPE_CHECKING:
    from socket import socket

    from rollbook.web.guard import Door

_TOKEN = "ROLLBOOK_WEB_TOKEN"  # noqa: S105 - the name of a variable


@click.command("serve", short_help="Open the threads in the browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=7331, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen; any other lets other machines in that have the link, unencrypted.",
)
@click.option("--no-open", is_flag=True, help="Only print the link.")
@common_options
def serve_command(settings: Settings, *, port: int, host: str, no_open: bool) -> None:
    """Open the threads in the browser: lists, search, transcripts, usage, logs, and what state all is in.

    \b
    rollbook serve
    rollbook serve --port 0 --no-open

    Whoever has the link that is printed can look; the token in it is made anew at each start, or
    taken from ROLLBOOK_WEB_TOKEN. /api/v1/openapi.json describes the HTTP API behind it, which takes
    the token as a bearer. Ctrl-C ends it.
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise UsageError("what serves pages isn't installed", hint="pip install 'rollbook[web]'")
    from rollbook.web.guard import Door

    with listen(host, port) as listening:
        address, port = listening.getsockname()[:2]
        door = Door(host if host == "localhost" else address, port, token_of(_TOKEN)[0])
        with settings.open() as state:
            serving = _serve(state, door, listening, opens=not no_open, as_json=settings.as_json)
            with suppress(KeyboardInterrupt):  # it is how one ends it, however early
                asyncio.run(serving)


async def _serve(
    state: StateRuntime, door: "Door", listening: "socket", *, opens: bool, as_json: bool
) -> None:
    from rollbook.web.live import Live
    from rollbook.web.server import make_app, make_server

    live = Live(state)
    server = make_server(make_app(state, door, live), live)
    served = state.database if state.host else str(state.codex_home)
    render.note(f"Serving {render.printable(served)}; Ctrl-C ends it.")
    if as_json:
        render.echo_json({"url": door.link})
    else:
        render.echo(door.link)
    if not door.is_loopback:
        render.note("Other machines can reach it, and what they read can be read on the way.")
    with tempfile.TemporaryDirectory(prefix="rollbook-") as folder:
        if opens and _has_screen():
            await asyncio.to_thread(_open_browser, door.link, Path(folder))
        await server.serve(sockets=[listening])


def _has_screen() -> bool:
    return render.on_terminal() and (
        sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    )


def _open_browser(link: str, folder: Path) -> None:
    """Open the link by a file: other users of the machine can see what programs are started with."""
    page = folder / "open.html"
    target = escape(link)
    page.write_text(
        f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={target}">', "utf-8"
    )
    webbrowser.open(page.as_uri())
