"""The artifact folder on disk."""
