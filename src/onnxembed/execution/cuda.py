"""What is particular to GPUs: the driver, running out of memory, and what failures mean.

Messages are those of onnxruntime-gpu 1.31 (CUDA 13, cuDNN 9).
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterable

from onnxembed.execution.providers import CUDA, TENSORRT

QUIET = 4
"""The log level of a run. Its failures are raised anyway, and a lack of memory is handled."""

ASSIGNMENT = "session.record_ep_graph_assignment_info"
"""The session option that makes ONNX Runtime report which provider each node went to."""

# Parts of the names of operators that do a model's work. Other operators compute shapes, and may run on the CPU.
WORK = ("Attention", "Conv", "Gelu", "Gemm", "MatMul", "Normalization", "Quantize", "RotaryEmbedding", "Softmax")

# An operator that CUDA has no kernel for, in the types of our graphs -> what to do.
_INSTEAD = {
    "GroupQueryAttention": "use fp16 or bf16 for a causal model (--precision fp32,fp16 at export, precision='fp16')",
    "MatMulIntegerToFloat": "int8 and int16 graphs are for CPUs; fp32, fp16, bf16 and int8w graphs run on CUDA",
}

_OTHERWISE = "choose another precision, or providers='cpu'"

INSTALL = "pip install 'onnxembed[gpu]'"

CURES = {
    CUDA: (
        f"onnxruntime-gpu needs CUDA, cuBLAS and cuDNN 9: {INSTALL} installs them; "
        "`nvidia-smi` shows whether the driver works"
    ),
    TENSORRT: "it needs TensorRT 10, whose libraries (libnvinfer, libnvonnxparser) must be on the loader's path",
}
"""What to do if a provider's libraries cannot be loaded."""

# A part of ONNX Runtime's message -> what it means and what to do.
_CAUSES = {
    "CUDA failure 35:": "the NVIDIA driver is too old for this onnxruntime-gpu: update it (`nvidia-smi` names it)",
    "CUDA failure 100:": "no GPU is visible: check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and --gpus of a container",
    "CUDA failure 101:": "there is no GPU of this number: `nvidia-smi -L` lists them, from 0",
    "CUDA failure 209:": "this onnxruntime-gpu has no code for this GPU, which is too old, or newer than the wheel",
    "CUDA failure 2:": "the GPU's memory is in use: `nvidia-smi` shows by what; gpu_mem_limit limits our share",
    "CUDA failure 802:": "the GPUs of this system are not ready: its fabric manager is not running",
    "Invalid device_id": "there is no GPU of this number: `nvidia-smi -L` lists them, from 0",
    "cuDNN": f"cuDNN 9 cannot be loaded: {INSTALL} installs it",
}

_OUT_OF_MEMORY = (
    "Failed to allocate memory",  # ONNX Runtime's arena
    "smaller than requested bytes",  # its arena under gpu_mem_limit
    "CUDA failure 2:",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def missing_driver() -> str:
    """A message if there is no NVIDIA driver, otherwise ""."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(library)
    except OSError:
        return f"there is no NVIDIA driver ({library}) here; --gpus all gives it to a container"
    return ""


def left_behind(operators: Iterable[str]) -> str:
    """A message about operators that went to the CPU and should not have, with what to do; "" if there are none."""
    work = Counter(name for name in operators if any(part in name for part in WORK))
    if not work:
        return ""
    names = ", ".join(f"{count} {name}" for name, count in sorted(work.items()))
    cures = [cure for name, cure in _INSTEAD.items() if name in work] or [_OTHERWISE]
    return f"the GPU has no kernels for {names}, and the CPU would compute them: {'; '.join(cures)}"


def cause(message: str) -> str:
    """What an error of ONNX Runtime on a GPU means and what to do; "" if that is unknown."""
    return next((meaning for part, meaning in _CAUSES.items() if part in message), "")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a run failed for lack of memory; a smaller one may succeed."""
    return any(part in str(error) for part in _OUT_OF_MEMORY)
