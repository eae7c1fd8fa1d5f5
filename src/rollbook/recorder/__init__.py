"""Record threads as Codex does: the rollout first, the database behind it.

Import from :mod:`rollbook`; the package itself holds nothing.
"""
