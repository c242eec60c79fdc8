"""One module a noun; each has `join(app)`, which adds its commands."""
