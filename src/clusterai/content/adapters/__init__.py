"""What touches the world: folders, holders over HTTP and fsspec, sealed copies, the server of a holder."""
