"""Integer graphs: `int8` and `int16` multiply integers, `int8w` stores them and multiplies in blocks."""
