"""Embedding models as ONNX folders that give the model's own vectors, fast, without torch."""

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import OnnxEmbedError
from onnxembed.manifest import Manifest

__version__ = "0.1.0"

__all__ = ["Manifest", "OnnxEmbedError", "OnnxEmbedder", "__version__"]
