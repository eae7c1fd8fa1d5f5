"""``rollbook mcp``: earlier sessions for agents."""

import asyncio
from importlib.util import find_spec

import click

from rollbook.cli import render
from rollbook.cli.listening import listen, token_of
from rollbook.cli.options import Settings, common_options
from rollbook.errors import UsageError

_TOKEN = "ROLLBOOK_MCP_TOKEN"  # noqa: S105 - the name of a variable


@click.command("mcp", short_help="Serve agents what earlier sessions have said.")
@click.option("--http", is_flag=True, help="Over HTTP on this machine, instead of standard input.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Which.  [default: any]")
@common_options
def mcp_command(settings: Settings, *, http: bool, port: int) -> None:
    """Serve agents what earlier sessions have said, by the Model Context Protocol.

    \b
    codex mcp add rollbook -- rollbook mcp
    claude mcp add rollbook -- rollbook mcp
    rollbook mcp --http --port 7332

    It offers search_threads, list_threads, read_thread, get_dynamic_tools and query_logs; none of them
    changes anything. With --http a token is needed, which is printed, or taken from
    ROLLBOOK_MCP_TOKEN.
    """
    if find_spec("mcp") is None:
        raise UsageError(
            "the Python SDK of MCP isn't installed", hint="pip install 'rollbook[mcp]'"
        )
    if port and not http:
        raise UsageError("--port is for --http", hint="add --http")
    asyncio.run(_serve_http(settings, port) if http else _serve(settings))


async def _serve(settings: Settings) -> None:
    from rollbook.aio import AsyncStateRuntime
    from rollbook.mcp_server.server import make_server

    async with AsyncStateRuntime.open(
        settings.home, database=settings.database, read_database=settings.read_database
    ) as state:
        await make_server(state).run_stdio_async()


async def _serve_http(settings: Settings, port: int) -> None:
    import uvicorn

    from rollbook.aio import AsyncStateRuntime
    from rollbook.mcp_server.server import PATH, http_app, make_server

    token, is_given = token_of(_TOKEN)
    with listen("127.0.0.1", port) as listening:
        host, port = listening.getsockname()
        async with AsyncStateRuntime.open(
            settings.home, database=settings.database, read_database=settings.read_database
        ) as state:
            app = http_app(make_server(state), host, port, token)
            config = uvicorn.Config(app, log_level="warning", lifespan="on")
            render.note(f"Serving http://{host}:{port}{PATH}")
            if not is_given:
                render.note(f"Authorization: Bearer {token}")
            await uvicorn.Server(config).serve(sockets=[listening])
