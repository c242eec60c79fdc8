"""A Flower app; `data.csv` below `data-path` is all that it knows of vaults."""
