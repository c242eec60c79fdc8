"""A whole network on one machine: its data folder, its bootstrap, and the supervisor of its processes."""
