"""What is read from a graph, one module per kind of output."""
