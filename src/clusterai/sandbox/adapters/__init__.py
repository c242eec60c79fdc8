"""Where tenants' code meets the machine: the blob store, namespaces, control groups, WASM."""
