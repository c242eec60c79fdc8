"""Sentences with personal data in them, and where it stands: what `bench.anonymise` measures with."""
