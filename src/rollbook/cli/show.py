"""``rollbook show``, ``tools`` and ``path``: one thread."""

from pathlib import Path

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options, complete_thread_id
from rollbook.errors import ThreadElsewhereError, ThreadNotFoundError
from rollbook.model.documents import thread_object, to_json, tool_object, transcript_object
from rollbook.model.lineage import LineageNode, Relation
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata
from rollbook.model.transcript import TranscriptPage
from rollbook.selection import find_thread

_ITEMS = 50
_TREE_LINES = 30
_TREE_DEPTH = 20

_thread_argument = click.argument("thread_id", metavar="ID", shell_complete=complete_thread_id)


@click.command("show", short_help="Show all that is known of a thread, or what was said in it.")
@_thread_argument
@click.option("--transcript", is_flag=True, help="Show what was said and done: the end of it.")
@click.option("--tools", is_flag=True, help="Show of tools what they were given and said, too.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="How many items.  [default: 50]"
)
@click.option("--before", metavar="POSITION", help="Show what comes before that.")
@click.option("--after", metavar="POSITION", help="Show what comes after that.")
@click.option("--at", metavar="POSITION", help="Begin there; `start` is the first item.")
@common_options
def show_command(
    settings: Settings,
    *,
    thread_id: str,
    transcript: bool,
    tools: bool,
    limit: int | None,
    before: str | None,
    after: str | None,
    at: str | None,
) -> None:
    """Show all that is known of a thread, or what was said in it.

    \b
    rollbook show 01a207c8
    rollbook show 01a207c8 --transcript --tools
    rollbook show 01a207c8 --at start --limit 10

    ID is a thread's id or any beginning of it that fits no other thread. Positions are those that
    `rollbook search` and this command give; an option for transcripts asks for one.
    """
    with settings.open() as state:
        thread = find_thread(state, thread_id)
        if transcript or tools or any((limit, before, after, at)):
            page = state.read_thread(
                thread.id, limit=limit or _ITEMS, before=before, after=after, at=at
            )
            _show_transcript(settings, page, tools=tools)
            return
        specs = state.get_dynamic_tools(thread.id) or []
        exists = state.rollout_exists(thread)
        tree = state.lineage(thread.id)
    if settings.as_json:
        render.echo_json(thread_object(thread, specs, tree, rollout_exists=exists))
    else:
        _show(thread, specs, exists=exists or state.is_elsewhere(thread))
        _show_tree(tree, thread.id)


def _show_transcript(settings: Settings, page: TranscriptPage, *, tools: bool) -> None:
    from rollbook.cli.transcript import show_page

    if settings.as_json:
        render.echo_json(transcript_object(page))
    else:
        show_page(page, tools=tools)


@click.command("tools", short_help="List the dynamic tools of a thread.")
@_thread_argument
@common_options
def tools_command(settings: Settings, *, thread_id: str) -> None:
    """List the dynamic tools of a thread, in the order they were given."""
    with settings.open() as state:
        thread = find_thread(state, thread_id)
        tools = state.get_dynamic_tools(thread.id) or []
    if settings.as_json:
        render.echo_json([tool_object(tool) for tool in tools])
    elif not tools:
        render.note("This thread has no dynamic tools.")
    for tool in [] if settings.as_json else tools:
        name, description = render.printable(tool.name), render.printable(tool.description)
        render.echo(f"{click.style(name, bold=True)}  {description}")
        render.echo("    " + to_json(tool.input_schema))


@click.command("path", short_help="Print where a thread's rollout is on disk.")
@_thread_argument
@common_options
def path_command(settings: Settings, *, thread_id: str) -> None:
    """Print where the rollout of a thread is on disk.

    For a compressed rollout that is the compressed file.
    """
    with settings.open() as state:
        thread = find_thread(state, thread_id)
        exists = state.rollout_exists(thread)
        is_elsewhere = state.is_elsewhere(thread)
    if is_elsewhere:
        raise ThreadElsewhereError(
            f"the rollout of thread {thread.id} is on host {thread.host}: {thread.rollout_path}",
            host=thread.host,
            hint="look there; `rollbook show --transcript` has what was said",
        )
    if not exists:
        raise ThreadNotFoundError(
            f"the rollout of thread {thread.id} is gone from {thread.rollout_path}",
            hint="`rollbook sync` takes it out of the index",
        )
    path = Path(thread.rollout_path)
    if not path.exists():
        path = path.with_name(path.name + ".zst")
    if settings.as_json:
        render.echo_json({"path": str(path)})
    else:
        render.echo(str(path))


def _show(thread: ThreadMetadata, tools: list[DynamicToolSpec], *, exists: bool) -> None:
    gone = "" if exists else "  (gone)"
    rows = {
        "Thread": thread.id,
        "Name": thread.name,
        "Tags": " ".join(f"#{tag}" for tag in thread.tags),
        "Pinned": "yes" if thread.pinned else "",
        "Title": thread.title,
        "Directory": thread.cwd,
        "Recorded in": thread.recorded_cwd,
        "Created": render.local_time(thread.created_at),
        "Last turn": render.local_time(thread.recency_at),
        "Updated": render.local_time(thread.updated_at),
        "Archived": render.local_time(thread.archived_at),
        "Source": thread.source,
        "Model": " ".join(filter(None, (thread.model, thread.reasoning_effort))),
        "Provider": thread.model_provider,
        "Tokens": _tokens(thread),
        "Approval": thread.approval_mode,
        "Sandbox": thread.sandbox_policy,
        "Git": " ".join(filter(None, (thread.git_branch, thread.git_sha, thread.git_origin_url))),
        "Forked from": thread.forked_from_id,
        "Parent": thread.parent_thread_id,
        "Agent": " ".join(filter(None, (thread.agent_nickname, thread.agent_role))),
        "Made by": " ".join(filter(None, (thread.originator, thread.cli_version))),
        "Tools": ", ".join(tool.name for tool in tools),
        "Host": thread.host,
        "Rollout": thread.rollout_path + gone,
    }
    for label, value in rows.items():
        if value:
            render.echo(f"{click.style(f'{label:<12}', bold=True)}{render.printable(value)}")


def _tokens(thread: ThreadMetadata) -> str:
    detail = (
        f" (input {thread.input_tokens:,}, of it cached {thread.cached_input_tokens:,};"
        f" output {thread.output_tokens:,}, of it reasoning {thread.reasoning_output_tokens:,})"
    )
    return f"{thread.tokens_used:,}" + (detail if thread.input_tokens else "")


def _show_tree(tree: LineageNode, thread_id: str) -> None:
    """Show the threads around one, if there are any."""
    nodes, count = tree.around(thread_id, _TREE_LINES)
    if count == 1:
        return
    render.echo(click.style("Lineage", bold=True))
    for depth, node in nodes:
        name = render.title_of(node.thread) if node.thread else "(not in the index)"
        relation = "" if node.relation is Relation.ROOT else f"{node.relation.value} "
        segments = f", in {node.segments} rollouts" if node.segments > 1 else ""
        line = f"{relation}{render.printable(node.id)}{segments}  {name}"
        indent = "  " * min(depth, _TREE_DEPTH)
        render.echo(f"  {'→' if node.id == thread_id else ' '} {indent}{line}")
    if count > len(nodes):
        render.note(f"{count} threads in all: --json has them.")
