"""A folder or hub id -> an artifact ready to open."""
