"""``rollbook completion``: what a shell needs to complete commands and ids."""

import click
from click.shell_completion import get_completion_class

from rollbook.cli import render
from rollbook.errors import UsageError


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(rollbook completion bash)"     # in ~/.bashrc; likewise zsh
    rollbook completion fish > ~/.config/fish/completions/rollbook.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    render.echo(kind(root, {}, "rollbook", "_ROLLBOOK_COMPLETE").source())
