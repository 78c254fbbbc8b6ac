"""Which output of a graph that another program made each task reads; one module for each task."""
