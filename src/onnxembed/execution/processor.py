"""The processor's name and the instructions that decide how fast graphs run on it."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onnxembed.execution.backend import Bf16Way

CPUINFO = Path("/proc/cpuinfo")
SYSCTL_SECONDS = 5

# Linux's names of instructions and the names that people know, from arch/x86/include/asm/cpufeatures.h
# and Documentation/arch/arm64/elf_hwcaps.rst of its source.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimdhp": "NEON FP16",
    "asimddp": "dot product",
    "bf16": "BF16",
    "i8mm": "int8 matrices",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}

# What macOS calls them, as far as it has them: sysctl's hw.optional.arm.NAME and machdep.cpu's features.
MACOS = {
    "FEAT_FP16": "asimdhp",
    "FEAT_DotProd": "asimddp",
    "FEAT_BF16": "bf16",
    "FEAT_I8MM": "i8mm",
    "FEAT_SME": "sme",
    "AdvSIMD": "asimd",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX512F": "avx512f",
    "AVX512VNNI": "avx512_vnni",
}


@dataclass(frozen=True)
class Processor:
    """A processor; `instructions` has those of `INSTRUCTIONS` that it is known to have, in that order."""

    name: str
    instructions: tuple[str, ...]

    @property
    def cuts_off_sums(self) -> bool:
        """Whether it is known to add products of bytes in 16 bits, where large ones are cut off: AVX2 without VNNI."""
        return "AVX2" in self.instructions and not any("VNNI" in words for words in self.instructions)

    def bf16_way(self, system: str) -> Bf16Way | None:
        """How it computes in bf16 under this operating system, as `platform.system` names it; None if it does not.

        OpenVINO would go without the instructions, more slowly than fp32. ONNX Runtime has its switch on Linux alone,
        and ignores it elsewhere.
        """
        if "AVX-512 BF16" in self.instructions or "AMX BF16" in self.instructions:
            return "openvino"
        return "fast_math" if "BF16" in self.instructions and system == "Linux" else None


def read_processor() -> Processor:
    """The processor of this machine, from /proc/cpuinfo or macOS's sysctl; elsewhere its name alone."""
    with suppress(OSError):
        return parse_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "machdep.cpu", "hw.optional"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SYSCTL_SECONDS, check=False)
            return parse_sysctl(done.stdout)
    return Processor(platform.processor() or platform.machine(), ())


def parse_cpuinfo(text: str) -> Processor:
    """What /proc/cpuinfo says of the first core."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    name = said.get("model name") or said.get("Model") or platform.machine()
    return _processor(name, (said.get("flags") or said.get("Features") or "").split())


def parse_sysctl(text: str) -> Processor:
    """What macOS's sysctl says under machdep.cpu and hw.optional."""
    said = dict(re.findall(r"^([\w.]+): (.*)$", text, re.MULTILINE))
    words = {word for key, value in said.items() if key.endswith("features") for word in value.split()}
    words |= {key.rpartition(".")[2] for key, value in said.items() if key.startswith("hw.optional") and value == "1"}
    name = said.get("machdep.cpu.brand_string") or platform.machine()
    return _processor(name, [linux for apple, linux in MACOS.items() if apple in words])


def _processor(name: str, flags: Sequence[str]) -> Processor:
    return Processor(name, tuple(words for flag, words in INSTRUCTIONS.items() if flag in flags))
