"""The version of the package, in one place; looking it up in installed metadata costs 25 ms."""

__version__ = "0.1.0"
