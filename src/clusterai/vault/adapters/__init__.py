"""What touches the world: encrypted files, journals, sealed calls."""
