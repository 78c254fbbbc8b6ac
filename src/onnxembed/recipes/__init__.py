"""The reader of the recipe book: what published files leave out."""
