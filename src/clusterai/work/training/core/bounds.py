"""How much of anything there may be; without numpy, so that the kind is known at no cost."""

MOST_METRICS = 64
"""In one reply."""
MOST_VAULTS = 128
"""2^22 levels, 2^20 examples, 2^7 vaults, and metrics' 2^32, 2^20, 2^7, stay below 2^60."""
