"""Token ids -> what the graph gives, for streams of texts."""
