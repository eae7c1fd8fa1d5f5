"""Values to databases and back.  Knows no rollout files.

Start with :mod:`~rollbook.store.engine`, the contract that a database engine fulfils.  The other
modules are functions that take a transaction and never begin or commit one.
"""
