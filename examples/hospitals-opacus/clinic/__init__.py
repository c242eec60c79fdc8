"""A Flower app with Opacus, as Flower's and Opacus' own examples have it; nothing in it knows of vaults."""
