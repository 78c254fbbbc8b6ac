"""bf16 on a CPU: which processors have it, what computes it there, and what it is refused for."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.commands import environment
from onnxembed.commands.graphs import examine_graphs
from onnxembed.errors import (
    MissingExtraError,
    ProviderError,
    UnsupportedError,
    UsageError,
)
from onnxembed.execution import processor
from onnxembed.execution.opening import why_no_bf16
from onnxembed.execution.processor import Processor, parse_cpuinfo
from onnxembed.execution.providers import CPU, Placement
from onnxembed.execution.session import FAST_MATH
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.locate import locate
from onnxembed.manifest import FILE_NAME, TASKS
from onnxembed.proof import checking
from onnxembed.proof.compare import compare
from onnxembed.proof.limits import REQUIRED
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.tokenizing import make_tokenizer
from running import Run, refused
from tiny_embedders import export_tiny

pytestmark = pytest.mark.usefixtures("cache")

X86 = Processor("an x86", ("AVX2", "AVX-512", "AVX-512 BF16"))
ARM = Processor("an ARM", ("NEON", "BF16"))
OLD = Processor("an older one", ("AVX2", "FMA", "F16C", "AVX-512", "AVX-512 VNNI"))


TEXTS = ["cat", "the cat sat on the mat", "a dog", "the dog ran and the cat sat", "mat", "a mat"]


needs_bf16 = pytest.mark.skipif(bool(why_no_bf16()), reason=why_no_bf16())


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine's processor another one."""

    def another(found: Processor, system: str = "Linux") -> None:
        monkeypatch.setattr(processor, "read_processor", lambda: found)
        monkeypatch.setattr(platform, "system", lambda: system)

    return another


def adopted(artifact: Path, folder: Path) -> Path:
    """A copy that says that another program made its graphs."""
    copy = shutil.copytree(artifact, folder / "copy")
    text = (copy / FILE_NAME).read_text()
    engine = json.loads(text)["model"]["engine"]
    (copy / FILE_NAME).write_text(text.replace(f'"engine": "{engine}"', '"engine": "adopted"'))
    return copy


@needs_bf16
@pytest.mark.parametrize("threads", [1, 2])
def test_vectors_are_those_of_fp32_but_for_rounding(artifact: Path, threads: int) -> None:
    """The proof has passed by then; all texts together, and each alone."""
    with OnnxEmbedder(artifact, precision="fp32", providers="cpu", threads=threads) as model:
        expected = model.encode(TEXTS)
    with OnnxEmbedder(artifact, precision="bf16", providers="cpu", threads=threads) as model:
        together, alone = model.encode(TEXTS), np.stack([model.encode(text) for text in TEXTS])
    for vectors in (together, alone):
        assert (vectors * expected).sum(axis=1).min() >= REQUIRED["bf16"].min_cosine
        assert np.abs(vectors - expected).max() > 1e-5, "nothing was rounded: this is fp32"


def test_without_openvino_the_extra_is_named(artifact: Path, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    on(X86)
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxembed\[openvino\]'"):
        OnnxEmbedder(artifact, precision="bf16", providers="cpu")


@pytest.mark.parametrize("flags", ["flags : avx512f avx512_bf16", "flags : amx_tile amx_bf16"])
def test_x86_with_the_instructions_goes_to_openvino(flags: str) -> None:
    assert parse_cpuinfo(flags).bf16_way("Linux") == "openvino"


def test_arm_with_the_instructions_goes_to_onnxruntime_on_linux_alone() -> None:
    """Elsewhere ONNX Runtime does not read the switch."""
    assert parse_cpuinfo("Features : asimd bf16 i8mm").bf16_way("Linux") == "fast_math"
    assert ARM.bf16_way("Darwin") is None
    assert parse_cpuinfo("Features : asimd").bf16_way("Linux") is None


@pytest.mark.parametrize(("found", "system"), [(OLD, "Linux"), (ARM, "Darwin"), (Processor("unknown", ()), "Windows")])
def test_other_processors_refuse(artifact: Path, on: Any, found: Processor, system: str) -> None:
    on(found, system)
    with pytest.raises(ProviderError, match=rf"bf16 on a CPU needs .* which {found.name} is not known to have: use"):
        OnnxEmbedder(artifact, precision="bf16", providers="cpu")


@pytest.mark.parametrize("command", [("embed", "a text"), ("serve",), ("verify",)])
def test_the_command_line_refuses_with_2(artifact: Path, on: Any, run: Run, command: tuple[str, ...]) -> None:
    name, *texts = command
    if name == "serve":
        pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")
    on(OLD)
    options = () if name == "serve" else ("--provider", "cpu")
    assert refused(run(name, artifact, *texts, "--precision", "bf16", *options), "bf16 on a CPU needs", "an older one")


def test_openvino_has_no_threads_that_spin(artifact: Path, on: Any) -> None:
    on(X86)
    with pytest.raises(UsageError, match="spin is for ONNX Runtime's threads"):
        OnnxEmbedder(artifact, precision="bf16", providers="cpu", spin=True)


def test_a_server_has_none_either(artifact: Path, on: Any, run: Run) -> None:
    pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")
    on(X86)
    assert refused(run("serve", artifact, "--precision", "bf16", "--spin"), "spin is for ONNX Runtime's threads")


def test_a_graph_of_another_program_is_refused(artifact: Path, on: Any, tmp_path: Path) -> None:
    """Nobody knows what its model gives, so nothing could be proved."""
    copy = adopted(artifact, tmp_path)
    on(X86)
    with pytest.raises(UnsupportedError, match="nothing proves its vectors in bf16 on a CPU; use precision fp32"):
        OnnxEmbedder(copy, precision="bf16", providers="cpu")


def test_onnxruntime_is_asked_for_fast_math_on_arm(artifact: Path, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    create = onnxruntime.InferenceSession

    def ask(graph: str, options: Any, **others: Any) -> Any:
        asked.append(options.get_session_config_entry(FAST_MATH))
        return create(graph, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", ask)
    on(ARM)
    placement = Placement("cpu", threads=1)
    model = OpenModel(artifact, TASKS, placement, precision="bf16", make_tokenizer=make_tokenizer)
    assert asked == ["1"]
    assert (model.provider, model.precision, model.variant) == (CPU, "bf16", "fp32")
    model.close()


def test_fast_math_is_for_texts_that_it_adds_up_correctly(tmp_path: Path, on: Any) -> None:
    """ONNX Runtime's sums of more than 256 numbers are wrong where a thread has few columns."""
    long = export_tiny(tmp_path, max_length=300, max_position_embeddings=300)
    on(ARM)
    with pytest.raises(
        UnsupportedError, match=r"at most 256 tokens, and .* for 300: .* with max_length=256, or use prec"
    ):
        OnnxEmbedder(long, precision="bf16", providers="cpu")
    with OnnxEmbedder(long, precision="bf16", providers="cpu", max_length=256) as model:
        assert model.encode("the cat").shape == (32,)


def test_bf16_is_proved_once_with_its_own_limits(artifact: Path, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[dict[str, float]] = []

    def watch(*arguments: Any, **options: Any) -> Iterator[Any]:
        for figure in compare(*arguments, **options):
            checked.append(dict(figure.required))
            yield figure

    monkeypatch.setattr(checking, "compare", watch)
    on(ARM)
    for _ in range(2):
        OnnxEmbedder(artifact, precision="bf16", providers="cpu").close()
    assert [figure["min_cosine"] for figure in checked] == [REQUIRED["bf16"].min_cosine]


def test_an_own_bf16_graph_is_for_gpus(checkpoint: Path, tmp_path: Path, on: Any) -> None:
    export(checkpoint, tmp_path / "both", Options(precisions=("fp32", "bf16")))
    on(X86)
    on_cpu = locate(tmp_path / "both", precision="bf16", device="cpu")
    assert (on_cpu.precision, on_cpu.graph.path.name, on_cpu.graph.bf16) == ("fp32", "model.onnx", "openvino")
    on_gpu = locate(tmp_path / "both", precision="bf16", device="gpu")
    assert (on_gpu.precision, on_gpu.graph.path.name, on_gpu.graph.bf16) == ("bf16", "model_bf16.onnx", None)
    assert on_gpu.graph.cuda_only


def test_other_precisions_are_what_they_were(artifact: Path, on: Any) -> None:
    on(X86)
    assert locate(artifact, device="cpu").graph.bf16 is None
    assert locate(artifact, precision="fp32", device="cpu").graph.bf16 is None
    with pytest.raises(UsageError, match="has no bf16 graph"):
        locate(artifact, precision="bf16")  # neither on a CPU nor on a GPU


def test_doctor_says_what_this_machine_can(on: Any) -> None:
    found = {}
    for each in (X86, ARM, OLD):
        on(each)
        found[each.name] = next(finding for finding in environment.examine() if finding.name == "bf16")
    assert not any(finding.broken for finding in found.values())
    assert "OpenVINO" in found["an x86"].text
    assert "ONNX Runtime" in found["an ARM"].text
    assert found["an older one"].text.startswith("not on this CPU")


def test_doctor_compares_it_with_the_proof_where_it_is_computed(
    artifact: Path, on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {}
    for each in (ARM, OLD, X86):
        monkeypatch.setitem(sys.modules, "openvino", None)
        on(each)
        names[each.name] = {finding.name: finding for finding in examine_graphs(artifact)}
    assert list(names["an older one"]) == list(names["an x86"]) == ["graph fp32", "graph fp16"]
    added = names["an ARM"]["fp32 as bf16"]
    assert (added.broken, added.text.startswith("as the proof says")) == (False, True)


def test_doctor_does_not_call_it_broken_if_it_is_wrong(
    artifact: Path, on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for it, and whoever does is refused."""
    monkeypatch.setitem(REQUIRED, "bf16", replace(REQUIRED["bf16"], min_cosine=1.1))
    on(ARM)
    found = {finding.name: finding for finding in examine_graphs(artifact)}
    assert found["fp32 as bf16"].text.startswith("does not give the model's own results")
    assert not any(finding.broken for finding in found.values())


def test_doctor_calls_nothing_broken_that_nobody_asked_for(artifact: Path, on: Any, tmp_path: Path) -> None:
    copy = adopted(artifact, tmp_path)
    on(ARM)
    found = {finding.name: finding for finding in examine_graphs(copy)}
    assert "nothing proves its vectors in bf16" in found["fp32 as bf16"].text
    assert not found["fp32 as bf16"].broken
