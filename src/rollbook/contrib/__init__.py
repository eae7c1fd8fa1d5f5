"""Rollbook inside other frameworks, one module each; each needs its extra installed."""
