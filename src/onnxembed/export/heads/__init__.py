"""From token embeddings to outputs, one module per task."""
