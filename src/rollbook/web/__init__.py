"""A page for one person and their browser, and a read-only HTTP API for their programs.

:func:`rollbook.web.server.make_app` puts it together; ``rollbook serve`` runs it.
"""
