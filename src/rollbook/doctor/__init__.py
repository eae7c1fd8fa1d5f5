"""What state a home is in, and what can be done about it without risk.

Import from the modules; the package itself holds nothing.
"""
