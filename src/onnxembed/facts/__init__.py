"""What a model's own files say. Standard library only."""
