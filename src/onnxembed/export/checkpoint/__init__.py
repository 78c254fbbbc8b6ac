"""A checkpoint's tensors and config.json."""
