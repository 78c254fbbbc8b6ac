"""Modules before and after the Pooling, against sentence-transformers on the same folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from onnxembed import OnnxEmbedder
from onnxembed.errors import UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FORMS, Form, graph_file, read_manifest
from portable import check_portable

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
st = pytest.importorskip("sentence_transformers")

TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


def layers() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules


def dense(*sizes: int, activation: Any = None, **options: Any) -> Any:
    made = layers().Dense(*sizes, activation_function=activation or torch.nn.Tanh(), **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    return made


def layer_norm(width: int) -> Any:
    made = layers().LayerNorm(width)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 1, 0.4)
    return made


CHAINS: dict[str, Callable[[], Sequence[Any]]] = {
    "dense before pooling": lambda: [dense(32, 16, **TOKENS), layers().Pooling(16, "mean")],
    "dense twice before pooling": lambda: [dense(32, 16, **TOKENS), dense(16, 8, **TOKENS), layers().Pooling(8, "max")],
    "residual dense before pooling": lambda: [dense(32, 12, use_residual=True, **TOKENS), layers().Pooling(12, "cls")],
    "normalized tokens": lambda: [layers().Normalize("token_embeddings"), layers().Pooling(32, "mean")],
    "normalize, dense": lambda: [layers().Pooling(32, "mean"), layers().Normalize(), dense(32, 16)],
    "normalize, dense, normalize": lambda: [
        layers().Pooling(32, "mean"),
        layers().Normalize(),
        dense(32, 16),
        layers().Normalize(),
    ],
    "layer norm": lambda: [layers().Pooling(32, "mean"), layer_norm(32)],
    "layer norm, normalize": lambda: [layers().Pooling(32, "cls"), layer_norm(32), layers().Normalize()],
    "dense, layer norm": lambda: [layers().Pooling(32, "cls"), dense(32, 24), layer_norm(24), layers().Normalize()],
    "residual dense": lambda: [layers().Pooling(32, "mean"), dense(32, 32, use_residual=True)],
    "residual dense of other widths": lambda: [layers().Pooling(32, "mean"), dense(32, 20, use_residual=True)],
    "softmax": lambda: [layers().Pooling(32, "mean"), dense(32, 20, activation=torch.nn.Softmax(dim=1))],
}


def saved(folder: Path, chain: str) -> Any:
    """A model with the chain, saved in the folder; it is loaded again, so that it is what the files say."""
    plain = tiny.write_bert(folder / "plain")
    model = st.SentenceTransformer(modules=[layers().Transformer(str(plain)), *CHAINS[chain]()], device="cpu")
    model.save(str(folder / "model"))
    return st.SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_of_modules_gives_the_references_vectors(tmp_path: Path, chain: str, form: Form) -> None:
    reference = saved(tmp_path, chain)
    export(tmp_path / "model", tmp_path / "onnx", Options(form=form))
    if form == "portable":
        check_portable(tmp_path / "onnx" / graph_file("fp32"))
    with OnnxEmbedder(tmp_path / "onnx", providers="cpu") as model:
        np.testing.assert_allclose(model.encode(tiny.TEXTS), reference.encode(tiny.TEXTS), rtol=2e-6, atol=2e-6)
        for text in tiny.TEXTS:
            np.testing.assert_allclose(model.encode([text]), reference.encode([text]), rtol=2e-6, atol=2e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_files_for_other_programs_name_the_same_modules(tmp_path: Path) -> None:
    saved(tmp_path, "dense, layer norm")
    export(tmp_path / "model", tmp_path / "onnx")
    weights = tmp_path / "model/model.safetensors"
    (tmp_path / "onnx/model.safetensors").write_bytes(weights.read_bytes())
    ours = st.SentenceTransformer(str(tmp_path / "onnx"), device="cpu", local_files_only=True).encode(tiny.TEXTS)
    theirs = st.SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True).encode(tiny.TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_modules_before_the_pooling_can_be_left_in_a_graph_that_leaves_the_pooling_out(tmp_path: Path) -> None:
    reference = saved(tmp_path, "dense before pooling")
    export(tmp_path / "model", tmp_path / "onnx", Options(pooling_out=True))
    with OnnxEmbedder(tmp_path / "onnx", providers="cpu") as model:
        np.testing.assert_allclose(model.encode(tiny.TEXTS), reference.encode(tiny.TEXTS), rtol=2e-6, atol=2e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("chain", ["normalize, dense", "layer norm", "residual dense"])
def test_modules_that_the_runtime_does_not_know_are_refused_with_pooling_out(tmp_path: Path, chain: str) -> None:
    saved(tmp_path, chain)
    with pytest.raises(UnsupportedError, match="--pooling-out: after the pooling"):
        export(tmp_path / "model", tmp_path / "onnx", Options(pooling_out=True))


@pytest.mark.filterwarnings("ignore")
def test_the_manifest_names_the_modules_in_order(tmp_path: Path) -> None:
    saved(tmp_path, "normalize, dense, normalize")
    manifest = export(tmp_path / "model", tmp_path / "onnx")
    assert manifest.require_embedding().layers == ("pooling", "Normalize", "Dense 32 -> 16, tanh")
    assert read_manifest(tmp_path / "onnx") == manifest


@pytest.mark.filterwarnings("ignore")
def test_a_softmax_of_tokens_is_refused(tmp_path: Path) -> None:
    plain = tiny.write_bert(tmp_path / "plain")
    softmax = dense(32, 16, activation=torch.nn.Softmax(dim=1), **TOKENS)
    modules = [layers().Transformer(str(plain)), softmax, layers().Pooling(16, "mean")]
    st.SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    with pytest.raises(UnsupportedError, match="Softmax of token embeddings"):
        export(tmp_path / "model", tmp_path / "onnx")
