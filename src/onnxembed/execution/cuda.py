"""What is particular to GPUs: the driver, running out of memory, and what failures mean.

Messages are those of onnxruntime-gpu 1.31 (CUDA 13, cuDNN 9).
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterable

from onnxembed.execution.providers import CUDA, TENSORRT

SHRINK = "memory.enable_memory_arena_shrinkage"
"""The run option that gives memory back to the GPU when the run ends; its value is `gpu:` and the device."""

QUIET = 4
"""The log level of a run: its failures are raised, and running out of memory is put right."""

ASSIGNMENT = "session.record_ep_graph_assignment_info"
"""The session option that has ONNX Runtime say which provider each node went to."""

# Parts of the names of operators that do a model's work; what is left to the CPU beside them computes shapes.
WORK = ("Attention", "Conv", "Gelu", "Gemm", "MatMul", "Normalization", "Quantize", "RotaryEmbedding", "Softmax")

# An operator that CUDA has no kernel for, in the types that our graphs have it in -> what to do.
_INSTEAD = {
    "GroupQueryAttention": "take fp16 or bf16 for a causal model (--precision fp32,fp16 at export, precision='fp16')",
    "MatMulIntegerToFloat": "int8 and int16 graphs are for CPUs; fp32, fp16, bf16 and int8w ones run there",
}

INSTALL = "pip install 'onnxembed[gpu]'"

CURES = {
    CUDA: (
        f"onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: {INSTALL} brings them; "
        "`nvidia-smi` shows whether the driver works"
    ),
    TENSORRT: "it needs TensorRT 10, whose libraries (libnvinfer, libnvonnxparser) must be on the loader's path",
}
"""What to do when a provider's libraries do not load."""

# A part of ONNX Runtime's message -> what it means and what to do.
_CAUSES = {
    "CUDA failure 35:": "the NVIDIA driver is too old for this onnxruntime-gpu: update it (`nvidia-smi` names it)",
    "CUDA failure 100:": "no GPU is visible: check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and --gpus of a container",
    "CUDA failure 101:": "there is no GPU of this number: `nvidia-smi -L` lists them, from 0",
    "CUDA failure 209:": "this onnxruntime-gpu has no code for this GPU: it is too old, or newer than the wheel",
    "CUDA failure 2:": "the GPU's memory is taken: `nvidia-smi` shows by whom; gpu_mem_limit bounds our part",
    "CUDA failure 802:": "the system's GPUs are not ready yet: its fabric manager is not running",
    "Invalid device_id": "there is no GPU of this number: `nvidia-smi -L` lists them, from 0",
    "cuDNN": f"cuDNN 9 cannot be loaded: {INSTALL} brings it",
}

_OUT_OF_MEMORY = (
    "Failed to allocate memory",  # ONNX Runtime's arena
    "smaller than requested bytes",  # its arena under gpu_mem_limit
    "CUDA failure 2:",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def missing_driver() -> str:
    """What is wrong where there is no NVIDIA driver, or ""."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(library)
    except OSError:
        return f"there is no NVIDIA driver ({library}) here; a container gets it by --gpus all"
    return ""


def left_behind(operators: Iterable[str]) -> str:
    """What of the operators that went to the CPU should not have, and what to do; "" when nothing is amiss."""
    work = Counter(name for name in operators if any(part in name for part in WORK))
    if not work:
        return ""
    names = ", ".join(f"{count} {name}" for name, count in sorted(work.items()))
    cures = [cure for name, cure in _INSTEAD.items() if name in work] or ["take another precision, or providers='cpu'"]
    return f"the GPU has no kernels for {names}, and the CPU would compute them: {'; '.join(cures)}"


def cause(message: str) -> str:
    """What an error of ONNX Runtime's on a GPU means and what to do, or ""."""
    return next((meaning for part, meaning in _CAUSES.items() if part in message), "")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a run failed for want of memory; a smaller one may not."""
    return any(part in str(error) for part in _OUT_OF_MEMORY)
