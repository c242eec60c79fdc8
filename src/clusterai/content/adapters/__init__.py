"""What touches the world: folders, holders over HTTP and fsspec, the server of a holder."""
