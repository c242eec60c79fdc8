"""What the commands about jobs do: gather, plan, follow, fetch, or run it all on this machine."""
