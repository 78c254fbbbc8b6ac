"""An artifact against what it should be."""
