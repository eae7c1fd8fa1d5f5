"""Rollouts into the database: one file, a whole home, one thread that was asked for.

Start with :mod:`~rollbook.index.indexer` (one file), then :mod:`~rollbook.index.backfill` (a home).
"""
