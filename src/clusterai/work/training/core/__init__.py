"""What decides, pure."""
