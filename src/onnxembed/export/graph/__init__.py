"""The vocabulary that graphs are written in."""
