"""Threads as documents: Markdown, HTML, JSON; without secrets, where that is wanted."""
