"""What a provider does: runs engines, keeps transcripts, speaks on links and with the chain."""
