"""Verification: correct artifacts are recorded; an error is found, named, and leaves the manifest as it was."""

from __future__ import annotations

import logging
import secrets
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hub_server import HubServer
from onnxembed.decisions.flags import Flags
from onnxembed.errors import HubError, MissingExtraError, ModelFilesError, OnnxEmbedError, UsageError, VerificationError
from onnxembed.export.artifact import record_manifest
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import FILE_NAME, PRECISIONS, PoolingMode, read_manifest
from onnxembed.proof.probes import PROBES
from onnxembed.verify import requirements
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.requirements import missing_requirements
from onnxembed.verify.verify import verify, verify_against
from tampering import change_graph, change_weights, ignore_mask
from tiny import change_json, write_bert, write_encoder, write_sentence_bert

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(bool(missing_requirements()), reason=missing_requirements() or "nothing is missing"),
]

PROMPTS = {"query": "to be: ", "title": "of: "}  # those of conftest's checkpoint
TANH = "torch.nn.modules.activation.Tanh"
BOTH = Options(precisions=PRECISIONS)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """One thread: the models are tiny, and waiting for other threads takes longer than computing."""
    pytest.importorskip("torch").set_num_threads(1)


def refused(folder: Path, against: Path | None, *words: str, kind: type[OnnxEmbedError] = VerificationError) -> bool:
    """Whether verification fails in one line with these words, and leaves the folder as it was."""
    before = contents(folder)
    with pytest.raises(kind) as caught:
        verify(folder, against=against)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message
    assert contents(folder) == before
    return True


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is right


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the tiny artifact, in fp32 and fp16."""
    return shutil.copytree(artifact, tmp_path / "copy")


def test_a_right_artifact_is_recorded(copy: Path) -> None:
    manifest = verify(copy)
    assert read_manifest(copy) == manifest
    assert list(manifest.verification) == ["fp32", "fp16"]
    for result in manifest.verification.values():
        assert result.texts == len(PROBES) + 2
        assert result.token_ids_equal
        assert result.reference.startswith("sentence-transformers ")
        assert result.versions.keys() == {"torch", "transformers", "sentence-transformers", "onnxruntime"}
    fp32, fp16 = manifest.verification.values()
    assert fp32.max_abs_diff < 1e-6
    assert fp32.required["max_abs_diff"] == 1e-5
    assert fp16.max_abs_diff > 1e-5
    assert fp16.min_cosine is not None
    assert 0.9999 < fp16.min_cosine < 1
    assert fp16.required["min_cosine"] == 0.9999


def test_a_folder_that_cannot_be_written_to_is_verified_all_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * size)
    (copy / f".{FILE_NAME}.0000.part").mkdir()  # where the manifest would be written; root may write anywhere
    with pytest.warns(UserWarning, match="not recorded: cannot write"):
        manifest = verify(copy)
    assert list(manifest.verification) == ["fp32", "fp16"]
    assert contents(copy) == before


def test_more_texts_can_be_compared(copy: Path) -> None:
    assert verify(copy, texts=["more", "texts"]).verification["fp32"].texts == len(PROBES) + 4


@pytest.mark.parametrize("pooling_out", [False, True])
def test_dense_layers_are_compared_wherever_they_are_computed(tmp_path: Path, pooling_out: bool) -> None:
    source = write_sentence_bert(tmp_path / "source", dense=((32, 24, TANH), (24, 8, TANH)), pooling="lasttoken")
    export(source, tmp_path / "out", Options(pooling_out=pooling_out))
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff < 1e-6


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", [("cls",), ("mean", "mean_sqrt_len", "max")])
def test_the_reference_follows_the_flags_where_a_checkpoint_is_silent(
    tmp_path: Path, pooling: tuple[PoolingMode, ...], normalize: bool
) -> None:
    source = write_bert(tmp_path / "source")
    export(source, tmp_path / "out", Options(flags=Flags(pooling, normalize, max_length=16)))
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff < 5e-6


def test_the_reference_follows_flags_that_contradict_a_checkpoint(tmp_path: Path) -> None:
    source = write_sentence_bert(tmp_path / "source", pooling="mean", normalize=True, dense=((32, 32, TANH),))
    export(source, tmp_path / "out", Options(flags=Flags(("cls",), normalize=False, max_length=12)))
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff < 5e-6


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_a_length_that_the_positions_do_not_allow_is_the_references_limit_too(tmp_path: Path, model_type: str) -> None:
    source = write_encoder(tmp_path / "source", model_type, max_length=1000)
    manifest = export(source, tmp_path / "out", Options())
    assert manifest.tokenization.max_length.value == (62 if model_type == "roberta" else 64)
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff < 1e-6


def test_progress_is_reported_from_the_start(copy: Path) -> None:
    stages: dict[str, int] = {}
    verify(copy, progress=lambda stage, done, total: stages.update({stage: total}))
    assert list(stages) == ["loading the reference", "running the reference", "verifying fp32", "verifying fp16"]


# What is wrong in one way


def wrong_weights(source: Path) -> None:
    write_sentence_bert(source, prompts=PROMPTS)
    change_weights(source, lambda name, tensor: tensor * np.float32(1.002 if "layer.1.output.dense" in name else 1))


def wrong_case(source: Path) -> None:
    write_sentence_bert(source, prompts=PROMPTS)
    change_json(source / "tokenizer_config.json", do_lower_case=False)


def wrong_end(source: Path) -> None:
    write_sentence_bert(source, prompts=PROMPTS)
    change_json(source / "tokenizer.json", post_processor=None)
    change_json(source / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


WRONG: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "weights": (wrong_weights, ["fp32 vectors are not the reference's", "alone", "(at most 1e-05)"]),
    "pooling": (lambda source: write_sentence_bert(source, prompts=PROMPTS, pooling="cls"), ["fp32 vectors are not"]),
    "normalization": (
        lambda source: write_sentence_bert(source, prompts=PROMPTS, normalize=False),
        ["fp32 vectors are not", "min cosine 1.000000"],
    ),
    "dimension": (
        lambda source: write_sentence_bert(source, prompts=PROMPTS, dense=((32, 8, TANH),)),
        ["shape (1, 8)", "(1, 32)"],
    ),
    "case": (wrong_case, ["token ids", "'Hello World'"]),
    "end": (wrong_end, ["token ids", "'a' has 1 token, not 3", "from token 0 on"]),
    "length": (
        lambda source: write_sentence_bert(source, prompts=PROMPTS, max_length=19),
        ["token ids", "has 19 tokens, not 20", "from token 18 on"],
    ),
    "prompts": (
        lambda source: write_sentence_bert(source, prompts={**PROMPTS, "query": "to be:"}),
        ["prompts are {'query': 'to be:'", "the reference's {'query': 'to be: '"],
    ),
    "no prompts": (write_sentence_bert, ["prompts are none, the reference's {'query'"]),
    "default prompt": (
        lambda source: write_sentence_bert(source, prompts=PROMPTS, default_prompt_name="query"),
        ["the default prompt is 'query', the reference's None"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_artifact_fails_verification(checkpoint: Path, tmp_path: Path, what: str) -> None:
    write, words = WRONG[what]
    write(tmp_path / "wrong")
    export(tmp_path / "wrong", tmp_path / "out", Options())
    assert refused(tmp_path / "out", checkpoint, *words)


@pytest.mark.parametrize("what", ["weights", "pooling", "normalization"])
def test_half_precision_hides_nothing(checkpoint: Path, tmp_path: Path, what: str) -> None:
    WRONG[what][0](tmp_path / "wrong")
    if what == "weights":
        change_weights(tmp_path / "wrong", lambda name, tensor: tensor * np.float32(1.05))
    export(tmp_path / "wrong", tmp_path / "out", Options(precisions=("fp16",)))
    assert refused(tmp_path / "out", checkpoint, "fp16 vectors are not the reference's")


def test_one_wrong_graph_is_enough(checkpoint: Path, copy: Path) -> None:
    """The fp32 graph is right, but nothing is recorded."""
    export(checkpoint, copy.parent / "wrong", Options(precisions=("fp16",), flags=Flags(normalize=False)))
    manifest = read_manifest(copy)
    name = manifest.variants["fp16"].file
    shutil.copyfile(copy.parent / "wrong" / name, copy / name)
    files = {**manifest.files, name: read_manifest(copy.parent / "wrong").files[name]}
    (copy / FILE_NAME).write_text(replace(manifest, files=files).to_json())
    assert refused(copy, checkpoint, "fp16 vectors")


def test_a_mask_that_is_ignored_is_seen_in_padded_batches_only(copy: Path) -> None:
    change_graph(copy, ignore_mask)
    with pytest.raises(VerificationError) as caught:
        verify(copy)
    ways = dict(part.rsplit(" ", 1) for part in str(caught.value).split("running: ")[1].split(";")[0].split(", "))
    assert float(ways["alone"]) < 1e-6
    assert float(ways["padded right"]) > 1e-3
    assert float(ways["padded left"]) > 1e-3


def test_vectors_that_are_not_numbers_are_refused(
    checkpoint: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor * np.float32(1e30 if "LayerNorm.weight" in name else 1))
    with pytest.raises(VerificationError, match="the fp32 graph gives numbers that are not finite"):
        export(source, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(record_manifest, "_with_proof", lambda draft, manifest, write: manifest)
    export(source, tmp_path / "out", Options())
    assert refused(tmp_path / "out", checkpoint, "fp32 vectors are not finite")
    assert refused(tmp_path / "out", source, "fp32 vectors are not finite")  # also when the reference's are no better
    assert refused(artifact, source, "the reference's vectors are not finite")


def test_a_manifest_that_promises_other_dimensions_is_refused(checkpoint: Path, copy: Path) -> None:
    manifest = read_manifest(copy)
    embedding = replace(manifest.require_embedding(), dimension=16)
    (copy / FILE_NAME).write_text(replace(manifest, embedding=embedding).to_json())
    assert refused(copy, checkpoint, "sentence_embedding has 32 numbers", kind=ModelFilesError)


# Vectors that are not of length 1


def write_scaled(folder: Path, scale: float) -> Path:
    """A model that does not normalize, whose vectors are as long as `scale` makes them."""
    write_sentence_bert(folder, normalize=False, prompts=PROMPTS)
    change_weights(folder, lambda name, tensor: tensor * np.float32(scale if "layer.1.output.LayerNorm" in name else 1))
    return folder


@pytest.mark.exact_bytes
def test_the_limit_grows_with_the_vectors(tmp_path: Path) -> None:
    source = write_scaled(tmp_path / "source", 1000)
    export(source, tmp_path / "out", BOTH)
    result = verify(tmp_path / "out").verification["fp32"]
    assert result.max_abs_diff > 1e-5
    assert 0.02 < result.required["max_abs_diff"] < 0.2


@pytest.mark.parametrize("scale", [1000, 1e-4])
def test_a_small_error_is_seen_at_every_scale(tmp_path: Path, scale: float) -> None:
    right, wrong = write_scaled(tmp_path / "right", scale), write_scaled(tmp_path / "wrong", scale)
    change_weights(wrong, lambda name, tensor: tensor * np.float32(1.02 if "layer.0.output.dense" in name else 1))
    export(wrong, tmp_path / "out", Options())
    assert refused(tmp_path / "out", right, "fp32 vectors are not the reference's")


def test_vectors_of_zeros_are_like_each_other(tmp_path: Path) -> None:
    source = write_sentence_bert(
        tmp_path / "source", dense=((32, 4, "torch.nn.modules.activation.ReLU"),), normalize=False
    )
    weights = load_file(source / "2_Dense/model.safetensors")
    save_file({**weights, "linear.bias": weights["linear.bias"] - 100}, source / "2_Dense/model.safetensors")
    export(source, tmp_path / "out", Options())
    assert verify(tmp_path / "out").verification["fp32"].min_cosine == 1


# What there is to compare with


def test_a_source_that_is_gone_must_be_given_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, "org/source")
    export("org/source", Path("out"), Options())
    shutil.rmtree("org")
    assert refused(Path("out"), None, "org/source, which is gone", "--against", kind=ModelFilesError)
    assert verify(Path("out"), against=checkpoint).verification


def test_the_commit_that_was_exported_is_the_reference(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({"org/tiny": {"main": checkpoint}}) as hub:
        hub.answer(monkeypatch)
        cached = HubOptions(cache_dir=tmp_path / "cache")
        export("org/tiny", tmp_path / "out", Options(), hub=cached)
        hub.push("org/tiny", write_sentence_bert(tmp_path / "newer", pooling="cls", prompts=PROMPTS))
        assert verify(tmp_path / "out", hub=cached).verification
        assert verify(tmp_path / "out", hub=replace(cached, local_files_only=True)).verification
        with pytest.raises(VerificationError):
            verify(tmp_path / "out", hub=replace(cached, revision="main"))
        with pytest.raises(VerificationError):
            verify(tmp_path / "out", against="org/tiny", hub=cached)
        with pytest.raises(HubError, match="no such model"):
            verify(tmp_path / "out", against="org/absent", hub=cached)


def test_a_reference_that_cannot_be_loaded_is_reported_in_one_sentence(
    copy: Path, checkpoint: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nonsense")
    assert refused(copy, broken, "the reference cannot be loaded")
    (broken / "model.safetensors").unlink()
    assert refused(copy, broken, "the reference cannot be loaded")
    assert refused(copy, tmp_path / "absent", "no folder at", kind=UsageError)


def test_the_reference_leaves_the_callers_settings_alone(copy: Path) -> None:
    bars: Any = pytest.importorskip("transformers.utils.logging")
    bars.enable_progress_bar()
    logging.disable(logging.NOTSET)
    before = (logging.root.manager.disable, bars.is_progress_bar_enabled(), list(warnings.filters))
    verify(copy)
    assert refused(copy, copy, "the reference cannot be loaded")
    assert (logging.root.manager.disable, bars.is_progress_bar_enabled(), list(warnings.filters)) == before


def test_without_torch_the_cure_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "torch" else object())
    assert refused(copy, None, "torch not installed", "pip install 'onnxembed[torch]'", kind=MissingExtraError)
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    assert refused(copy, None, "pip install 'onnxembed[cpu,torch]'", kind=MissingExtraError)


# In an export


def test_figures_that_cannot_be_written_leave_nothing_behind(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(copy)

    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        verify(copy)
    assert contents(copy) == before


def test_comparing_with_a_given_checkpoint_writes_nothing(copy: Path, checkpoint: Path) -> None:
    before = contents(copy)
    compared = verify_against(Comparison(copy, read_manifest(copy), checkpoint))
    assert contents(copy) == before
    assert verify(copy, against=checkpoint) == compared
    assert contents(copy) != before


@pytest.mark.exact_bytes
def test_the_draft_is_verified_with_the_manifest_in_it(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(
        checkpoint,
        tmp_path / "out",
        BOTH,
        verify=lambda draft, made, source: verify_against(Comparison(draft, made, source.folder)),
    )
    assert asdict(read_manifest(tmp_path / "out")) == asdict(manifest)
    assert manifest.verification
