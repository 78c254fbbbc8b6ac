"""The tokenizer files of an artifact."""
