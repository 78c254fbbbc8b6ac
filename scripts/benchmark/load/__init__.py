"""Load on a server over loopback: `python -m benchmark.load`, as scripts/load runs it."""
