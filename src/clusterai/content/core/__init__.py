"""What decides: manifests, who fetches what from whom, which addresses may be dialled. Pure."""
