"""The formats of input files: one file each, behind the protocol of `rows`."""
