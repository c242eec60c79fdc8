"""An app that evaluates on rows of its own."""
