"""What scripts/bench and scripts/quality are made of; run with the `scripts` folder on the path."""
