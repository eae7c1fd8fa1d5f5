"""The command line: parse, call the public interface, render.

:mod:`~rollbook.cli.app` joins the commands, one file each; :mod:`~rollbook.cli.options` has what
they share, :mod:`~rollbook.cli.render` how things look.
"""
