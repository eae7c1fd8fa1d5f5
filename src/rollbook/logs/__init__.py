"""The logs of a home: a database for them, kept within bounds, and a way to only read one.

Import from the modules; the package itself holds nothing.
"""
