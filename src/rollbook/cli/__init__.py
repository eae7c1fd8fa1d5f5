"""The command line: parse, call the public interface, render.

:mod:`~rollbook.cli.app` joins the commands, one file each; :mod:`~rollbook.cli.options` has what
they share, :mod:`~rollbook.cli.render` how things look.
"""

import gc


def main() -> None:
    """Run the command line; see :func:`rollbook.cli.app.main`."""
    gc.disable()  # loading makes no garbage, and Python would look for it again and again: 5 ms
    try:
        from rollbook.cli.app import main as run
    finally:
        gc.enable()
    run()
