"""Rollbook as an MCP server: agents look up how something was solved before (the extra ``mcp``)."""
