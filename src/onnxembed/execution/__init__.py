"""ONNX Runtime: where and how runs are computed."""
