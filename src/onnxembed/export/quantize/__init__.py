"""8-bit graphs: `int8` multiplies integers, `int8w` stores them and multiplies in blocks."""
