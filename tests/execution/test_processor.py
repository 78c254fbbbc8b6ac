"""The processor's instructions, from samples of what Linux and macOS print."""

from __future__ import annotations

import pytest

from onnxembed.execution.processor import Processor, parse_cpuinfo, parse_sysctl

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 fma avx f16c avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
processor\t: 1
model name\t: another
"""
GRAVITON = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes asimdhp asimddp sve i8mm bf16
CPU part\t: 0xd40
"""
M2 = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
"""
MAC_INTEL = """machdep.cpu.brand_string: Intel(R) Core(TM) i7
machdep.cpu.features: FPU SSE2 FMA AVX1.0 F16C
machdep.cpu.leaf7_features: AVX2 AVX512F
"""


def test_an_x86_processor_of_linux() -> None:
    expected = ("AVX2", "FMA", "F16C", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16", "AMX", "AMX int8", "AMX BF16")
    assert parse_cpuinfo(XEON) == Processor("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", expected)


def test_an_arm_processor_of_linux() -> None:
    expected = ("NEON", "NEON FP16", "dot product", "BF16", "int8 matrices", "SVE")
    assert parse_cpuinfo(GRAVITON).instructions == expected


def test_processors_of_macos() -> None:
    assert parse_sysctl(M2) == Processor("Apple M2", ("NEON", "BF16", "int8 matrices"))
    assert parse_sysctl(MAC_INTEL) == Processor("Intel(R) Core(TM) i7", ("AVX2", "FMA", "F16C", "AVX-512"))


def test_a_machine_that_says_nothing_has_a_name() -> None:
    assert parse_cpuinfo("").name
    assert parse_sysctl("").instructions == ()


@pytest.mark.parametrize(
    ("flags", "cut_off"),
    [
        ("fma avx2", True),
        ("fma avx2 avx512f avx512_bf16", True),
        ("fma avx2 avx_vnni", False),
        ("fma avx2 avx512f avx512_vnni", False),
        ("sse2", False),
        ("asimd asimddp", False),
        ("", False),
    ],
)
def test_sums_of_bytes_are_known_to_be_cut_off_with_avx2_and_without_vnni(flags: str, cut_off: bool) -> None:
    assert parse_cpuinfo(f"flags : {flags}").cuts_off_sums is cut_off
