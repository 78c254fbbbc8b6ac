"""The Python behind the entry scripts (scripts/bench, scripts/quality, ...), which put `scripts` on the path."""
