"""What a job finds inside: read as text and laid beside its inputs, never imported by us."""
