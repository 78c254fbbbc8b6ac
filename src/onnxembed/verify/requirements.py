"""What a comparison with the original model needs; this module itself needs none of it."""

from __future__ import annotations

from importlib.util import find_spec

from onnxembed.errors import MissingExtraError

_TORCH_EXTRA = ("torch", "transformers", "sentence_transformers", "onnx", "ml_dtypes")


def missing_requirements() -> str:
    """The packages that verification needs and that are not installed, with the cure; "" if all are installed."""
    missing = [name for name in (*_TORCH_EXTRA, "onnxruntime") if find_spec(name) is None]
    if not missing:
        return ""
    extras = []
    if "onnxruntime" in missing:
        extras.append("cpu")
    if any(name in missing for name in _TORCH_EXTRA):
        extras.append("torch")
    return f"{', '.join(missing)} not installed: pip install 'onnxembed[{','.join(extras)}]'"


def require_verification() -> None:
    """Raise MissingExtraError unless all that verification needs is installed."""
    if why := missing_requirements():
        raise MissingExtraError(f"verification compares with torch ({why})")
