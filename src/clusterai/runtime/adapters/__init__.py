"""The machine's real world: SQLite, the system's clock and entropy, and the asyncio driver."""
