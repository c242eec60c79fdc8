"""An EVM chain in one process, for the local network: standard JSON-RPC in front, a durable journal behind."""
