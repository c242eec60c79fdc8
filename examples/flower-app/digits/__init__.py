"""A Flower app as Flower's own templates have it; nothing in it knows of vaults."""
