"""What a provider decides: the lease book."""
