"""Who writes the encoder."""
