"""What writes the encoder: onnxembed's builders, or another exporter."""
