"""The reference implementations that artifacts are compared with."""
