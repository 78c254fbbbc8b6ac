"""Texts from files, vectors to files."""
