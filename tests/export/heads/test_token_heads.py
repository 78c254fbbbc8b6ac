"""Sparse and multi-vector embeddings from the command line, and their verification."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.decisions.flags import Flags
from onnxembed.errors import OnnxEmbedError, UsageError, VerificationError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, Precision, read_manifest
from onnxembed.verify.requirements import missing_requirements
from onnxembed.verify.verify import self_check, verify
from tampering import change_weights
from tiny_heads import write_bge_m3, write_colbert_encoder, write_masked_lm

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than max_length")
needs_torch = pytest.mark.skipif(bool(missing_requirements()), reason=missing_requirements() or "nothing is missing")

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
EXPANSION = {"strategy": "fixed", "length": 8}

WRITE: dict[str, Callable[[Path], Path]] = {
    "sparse": lambda folder: write_masked_lm(folder, pooling={"pooling_strategy": "max"}),
    "multi_vector": lambda folder: write_colbert_encoder(folder, expansion=EXPANSION, document_length=16),
    "bge-m3": write_bge_m3,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sources")
    for name, write in WRITE.items():
        export(write(place / name), place / f"{name}-onnx", Options(PRECISIONS))
    return place


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if isinstance(result.exception, OnnxEmbedError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


# The command line


def test_sparse_embeddings_are_lines_of_json(sources: Path, tmp_path: Path) -> None:
    folder = sources / "sparse-onnx"
    printed = run("embed", folder, "--sparse", "the cat", "a").stdout
    run("embed", folder, "--sparse", "the cat", "a", "-o", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == printed
    with OnnxEmbedder(folder) as model:
        for line, expected in zip(printed.splitlines(), model.embed_sparse(["the cat", "a"]), strict=True):
            embedding = json.loads(line)
            assert embedding["indices"] == expected.indices.tolist()
            assert np.array_equal(np.array(embedding["values"], np.float32), expected.values)


def test_vectors_of_tokens_are_lines_of_json(sources: Path) -> None:
    folder = sources / "multi_vector-onnx"
    printed = run("embed", folder, "--multi-vector", "--kind", "query", "the cat", "a").stdout
    with OnnxEmbedder(folder) as model:
        expected = model.embed_multi_vector(["the cat", "a"], kind="query")
        for line, vectors in zip(printed.splitlines(), expected, strict=True):
            assert np.array_equal(np.array(json.loads(line), np.float32), vectors)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparse", "-o", "x.npy"], "x.npy: sparse embeddings are written to .jsonl"),
        (["--multi-vector", "-o", "x.npy"], "x.npy: vectors of tokens are written to .jsonl"),
        (["--sparse", "--multi-vector"], "cannot be combined"),
        (["--sparse", "--dimensions", "2"], "--dimensions: for dense vectors, not for --sparse"),
        (["--multi-vector"], "not for multi_vector"),
        ([], r"made for sparse \(OnnxEmbedder.embed_sparse, onnxembed embed --sparse\)"),
    ],
)
def test_options_that_do_not_go_together_are_refused(sources: Path, options: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run("embed", sources / "sparse-onnx", *options, "a")


def test_the_task_of_a_plain_checkpoint_is_an_option(tmp_path: Path) -> None:
    write_masked_lm(tmp_path / "source")
    output = run("export", tmp_path / "source", "-o", tmp_path / "out", "--task", "sparse", "--no-verify").stdout
    assert "weights for 87 tokens" in output
    assert "sparse embeddings are finite, and the same for a text alone and among others" in output
    assert read_manifest(tmp_path / "out").tasks == ("sparse",)


def test_inspect_says_what_was_decided(sources: Path) -> None:
    sparse = run("inspect", sources / "sparse-onnx").stdout
    assert "aggregation      max (file: 1_SpladePooling/config.json: pooling_strategy), in the graph" in sparse
    several = run("inspect", sources / "bge-m3-onnx").stdout
    assert "tasks            embedding, sparse, multi_vector" in several
    assert "dropped tokens   0, 1, 2, 3" in several
    colbert = run("inspect", sources / "multi_vector-onnx").stdout
    assert "expansion        to 8 tokens with token 4, not attended, longer ones cut" in colbert
    assert "skipped tokens   85, 86 of a document" in colbert


# Verification


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("sparse", {"sparse"}),
        ("multi_vector", {"multi_vector"}),
        ("bge-m3", {"", "sparse", "multi_vector"}),
    ],
)
def test_a_right_artifact_is_recorded(sources: Path, tmp_path: Path, name: str, keys: set[str]) -> None:
    copy = shutil.copytree(sources / f"{name}-onnx", tmp_path / "copy")
    results = verify(copy).verification
    assert {*results} == {f"{precision} {key}".strip() for precision in PRECISIONS for key in keys}
    assert read_manifest(copy).verification == results
    for key in keys:
        assert results[f"fp32 {key}".strip()].max_abs_diff <= 1e-5
        assert results[f"fp32 {key}".strip()].token_ids_equal


def test_every_kind_checks_itself_without_torch(sources: Path) -> None:
    for name in WRITE:
        summary = self_check(sources / f"{name}-onnx")
        assert "not even run" not in summary
        assert "the same for a text alone and among others" in summary


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "the head of a masked language model": (
        "sparse",
        lambda folder: change_weights(
            folder, lambda name, tensor: tensor * np.float32(1.01) if "predictions.transform.dense" in name else tensor
        ),
        "fp32 sparse embeddings are not the reference's",
    ),
    "a projection": (
        "multi_vector",
        lambda folder: _scale(folder / "1_Dense/model.safetensors"),
        "fp32 multi_vector embeddings are not the reference's",
    ),
    "a length": (
        "multi_vector",
        lambda folder: write_colbert_encoder(folder, expansion=EXPANSION, document_length=15),
        "token ids of a document are not the reference's",
    ),
    "skipped words": (
        "multi_vector",
        lambda folder: write_colbert_encoder(folder, expansion=EXPANSION, document_length=16, skip=("a",)),
        "have the shape",
    ),
    "a head of bge-m3's": (
        "bge-m3",
        lambda folder: shutil.copyfile(_other_m3(folder) / "colbert_linear.pt", folder / "colbert_linear.pt"),
        "multi_vector",
    ),
}


def _scale(path: Path) -> None:
    save_file(
        {
            name: tensor * np.linspace(1, 1.1, len(tensor), dtype=np.float32)[:, None]
            for name, tensor in load_file(path).items()
        },
        path,
    )


def _other_m3(folder: Path) -> Path:
    return write_bge_m3(folder.parent / "other", dimension=31)


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_artifact_fails_verification(sources: Path, tmp_path: Path, what: str) -> None:
    name, spoil, words = WRONG[what]
    wrong = shutil.copytree(sources / name, tmp_path / "wrong")
    spoil(wrong)
    export(wrong, tmp_path / "out", Options(flags=Flags()))
    before = (tmp_path / "out" / FILE_NAME).read_bytes()
    with pytest.raises(VerificationError, match=words):
        verify(tmp_path / "out", against=sources / name)
    assert (tmp_path / "out" / FILE_NAME).read_bytes() == before
