"""Texts and pairs -> token ids."""
