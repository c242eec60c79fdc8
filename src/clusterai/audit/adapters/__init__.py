"""libsodium's sealed boxes."""
