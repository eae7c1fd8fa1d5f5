"""Rollouts: where they lie, what their lines say, what that makes of a thread.

Start with :mod:`~rollbook.rollout.layout` (files), then :mod:`~rollbook.rollout.scan` (bytes to
records), :mod:`~rollbook.rollout.lines` (one record), :mod:`~rollbook.rollout.fold` (records to a
thread) and :mod:`~rollbook.rollout.extract` (all of it for one file).  Opens rollouts for reading
only, and knows no database.
"""
