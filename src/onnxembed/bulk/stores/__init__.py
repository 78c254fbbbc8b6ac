"""Databases that vectors are loaded into: one file each, behind the protocol of `store`."""
