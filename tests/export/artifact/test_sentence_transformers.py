"""The sentence-transformers files of an artifact state what was decided, for onnxembed and for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from decided import decide_embedding, decide_encoder
from models.torch_files import write_torch
from onnxembed import OnnxEmbedder
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.export.artifact.sentence_transformers import write_sentence_transformers
from onnxembed.export.heads.embedding import dense_entries
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import POOLING_MODES, Dense, Embedding, PoolingMode
from tiny import CONFIG, TEXTS, change_json, write_json, write_sentence_bert

TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"

MODES: list[tuple[PoolingMode, ...]] = [
    *[(mode,) for mode in POOLING_MODES],
    ("cls", "mean"),
    ("mean", "cls"),
    ("lasttoken", "mean_sqrt_len"),
    ("mean", "mean"),
]


def write(folder: Path, out: Path, *, pooling_out: bool = False, **flags: Any) -> tuple[Dense, ...]:
    """Write the modules of a checkpoint into `out`; returns the manifest's Dense entries."""
    out.mkdir(exist_ok=True)
    facts = read_facts(folder)
    decisions = decide(facts, Flags(**flags))
    assert decisions.embedding is not None
    embedding = Embedding(
        pooling=decisions.embedding.pooling,
        dense=dense_entries(facts, in_files=pooling_out),
        normalize=decisions.embedding.normalize,
        dimension=decisions.embedding.dimension,
        pooled_by="runtime" if pooling_out else "graph",
    )
    write_sentence_transformers(facts, decisions, embedding, out)
    return embedding.dense


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("modes", MODES, ids="+".join)
def test_the_files_lead_back_to_the_same_decisions(
    tmp_path: Path, modes: tuple[PoolingMode, ...], normalize: bool
) -> None:
    folder = write_sentence_bert(tmp_path / "model", prompts={"query": "q: "}, default_prompt_name="query")
    write(folder, tmp_path / "out", pooling=modes, normalize=normalize, max_length=9)
    encoder, embedding = decide_encoder(tmp_path / "out"), decide_embedding(tmp_path / "out")
    assert embedding.pooling.value == modes
    assert embedding.normalize.value == normalize
    assert encoder.max_length.value == 9
    assert encoder.prompts.texts.value == {"query": "q: "}
    assert encoder.prompts.default.value == "query"
    assert embedding.dimension == 32 * len(modes)


@pytest.mark.torch
@pytest.mark.parametrize("modes", MODES, ids="+".join)
def test_sentence_transformers_reads_the_pooling(tmp_path: Path, modes: tuple[PoolingMode, ...]) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    write(write_sentence_bert(tmp_path / "model"), tmp_path / "out", pooling=modes)
    pooling = modules.Pooling.load(str(tmp_path / "out"), subfolder="1_Pooling")
    names = tuple("mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode for mode in modes)
    assert pooling.pooling_mode == (names[0] if len(names) == 1 else names)
    assert pooling.include_prompt
    assert pooling.get_embedding_dimension() == 32 * len(modes)


@pytest.mark.torch
@pytest.mark.parametrize(
    "flags", [{}, {"pooling": ("mean", "cls")}, {"normalize": False, "max_length": 15}, {"pooling": ("lasttoken",)}]
)
def test_sentence_transformers_makes_the_artifacts_vectors_from_its_files(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    """With the checkpoint's weights beside them, the artifact's files are a sentence-transformers model."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    wide = 64 if len(flags.get("pooling", ())) == 2 else 32
    folder = write_sentence_bert(tmp_path / "model", dense=((wide, 8, TANH), (8, 12, IDENTITY)))
    export(folder, tmp_path / "out", Options(flags=Flags(**flags)))
    texts = [text for text in TEXTS if len(text) < 15]
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        expected = model.encode(texts)
    shutil.copy(folder / "model.safetensors", tmp_path / "out")
    reference = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert reference.max_seq_length == flags.get("max_length", 20)
    np.testing.assert_allclose(reference.encode(texts), expected, atol=5e-6)


def test_modules_are_numbered_without_gaps(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH), (8, 12, IDENTITY)))
    write(folder, tmp_path / "out")
    assert [(module["idx"], module["path"]) for module in read(tmp_path / "out/modules.json")] == [
        (0, ""),
        (1, "1_Pooling"),
        (2, "2_Dense"),
        (3, "3_Dense"),
        (4, "4_Normalize"),
    ]


def test_dropout_is_left_out(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    listed = read(folder / "modules.json")
    listed.insert(2, {"idx": 9, "name": "9", "path": "2_Dropout", "type": "sentence_transformers.models.Dropout"})
    write_json(folder / "modules.json", listed)
    write(folder, tmp_path / "out")
    assert [module["path"] for module in read(tmp_path / "out/modules.json")][1:] == [
        "1_Pooling",
        "2_Dense",
        "3_Normalize",
    ]


def test_dense_modules_are_copied_and_described(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    assert write(folder, tmp_path / "out") == (Dense(32, 8, "tanh", None, None),)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "out/2_Dense" / file).read_bytes() == (folder / "2_Dense" / file).read_bytes()
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_a_dense_module_that_is_a_pickle_becomes_safetensors(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    weights = load_file(folder / "2_Dense/model.safetensors")
    (folder / "2_Dense/model.safetensors").unlink()
    write_torch(folder / "2_Dense/pytorch_model.bin", weights)
    write(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/2_Dense").iterdir()) == ["config.json", "model.safetensors"]
    written = load_file(tmp_path / "out/2_Dense/model.safetensors")
    assert written.keys() == weights.keys()
    for name, expected in weights.items():
        np.testing.assert_array_equal(written[name], expected)


def test_with_pooling_left_to_the_runtime_dense_weights_lie_beside_it(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model", dense=((32, 8, TANH),))
    written = write(folder, tmp_path / "out", pooling_out=True)
    assert written == (Dense(32, 8, "tanh", "2_Dense/weight.npy", "2_Dense/bias.npy"),)
    weights = load_file(folder / "2_Dense/model.safetensors")
    np.testing.assert_array_equal(np.load(tmp_path / "out/2_Dense/weight.npy"), weights["linear.weight"])
    np.testing.assert_array_equal(np.load(tmp_path / "out/2_Dense/bias.npy"), weights["linear.bias"])


def test_config_is_kept_as_it_is(tmp_path: Path) -> None:
    write(write_sentence_bert(tmp_path / "model"), tmp_path / "out")
    assert read(tmp_path / "out/config.json") == CONFIG


@pytest.mark.parametrize("lower", [True, False])
def test_lower_casing_is_written(tmp_path: Path, lower: bool) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    change_json(folder / "sentence_bert_config.json", do_lower_case=lower)
    write(folder, tmp_path / "out")
    assert read(tmp_path / "out/sentence_bert_config.json") == {"max_seq_length": 20, "do_lower_case": lower}


@pytest.mark.parametrize("similarity", ["dot", None])
def test_similarity_is_taken_from_the_source(tmp_path: Path, similarity: str | None) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    change_json(folder / "config_sentence_transformers.json", similarity_fn_name=similarity)
    write(folder, tmp_path / "out")
    assert read(tmp_path / "out/config_sentence_transformers.json")["similarity_fn_name"] == similarity
