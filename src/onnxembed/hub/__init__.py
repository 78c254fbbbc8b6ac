"""A model id or a path -> files on disk."""
