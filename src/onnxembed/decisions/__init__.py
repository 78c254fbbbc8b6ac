"""Facts, recipe and flags -> decisions, each with its origin."""
