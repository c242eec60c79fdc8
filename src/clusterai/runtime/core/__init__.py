"""What a link decides before anything may be said on it, without any socket."""
