"""The gateway's real world: HTTP, text and tokens, its SQLite tables, and the wiring to links and chain."""
