"""Whether the vectors of an fp32 graph can also be had in bf16 on this machine's CPU."""

from __future__ import annotations

from onnxembed.errors import MissingExtraError, ProviderError
from onnxembed.execution.opening import bf16_way


def why_no_bf16() -> str:
    """Why this CPU does not compute in bf16, in one sentence; empty where it does."""
    try:
        if bf16_way() == "openvino":
            from onnxembed.execution.openvino import load_openvino

            load_openvino()
    except (ProviderError, MissingExtraError) as error:
        return str(error)
    return ""
