"""The ledger's hands: the chain client, the embedded chain, the manifest and key files."""
