"""Seeded mutations of checkpoints, artifacts and texts, each run in a process of its own."""
