"""Sparse embeddings (SPLADE) against sentence-transformers' SparseEncoder, and what makes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsupportedError, UsageError
from onnxembed.export.heads import masked_lm
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FORMS, Decision, Form, Precision, Sparse, graph_file
from onnxembed.runtime.outputs.sparse import SparseEmbedding, sparse_embeddings
from onnxembed.similarity import hybrid_score, sparse_dot
from portable import check_portable
from tampering import change_weights
from tiny import TEXTS, VOCAB, change_json, write_sentence_bert
from tiny_heads import MASKED_LM, write_masked_lm

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than max_length")

LONG = " ".join(["the cat is in"] * 12)  # longer than the model's 20 tokens
EVERY = [*TEXTS, LONG]
TASK = Options(flags=Flags(task="sparse"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("splade")
    export(write_masked_lm(place / "source"), place / "out", TASK)
    return place / "out"


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(folder) as opened:
        yield opened


def reference(folder: Path, texts: list[str], *, side: str = "right") -> NDArray[np.float32]:
    """The embeddings of sentence-transformers, [N, V], all texts in one padded batch."""
    torch: Any = pytest.importorskip("torch")
    sentence_transformers: Any = pytest.importorskip("sentence_transformers")
    loading = {"attn_implementation": "eager", "dtype": torch.float32}
    encoder = sentence_transformers.SparseEncoder(str(folder), device="cpu", model_kwargs=loading)
    encoder.tokenizer.padding_side = side
    options = {"batch_size": len(texts), "show_progress_bar": False, "convert_to_sparse_tensor": False}
    vectors: NDArray[np.float32] = encoder.encode(texts, **options).numpy()
    return vectors


def assert_sparse_equal(ours: list[SparseEmbedding], theirs: NDArray[np.float32]) -> None:
    for embedding, row in zip(ours, theirs, strict=True):
        assert embedding.indices.tolist() == np.flatnonzero(row).tolist()
        assert np.abs(embedding.values - row[embedding.indices]).max(initial=0) <= 1e-5
        assert embedding.indices.dtype == np.int64
        assert embedding.values.dtype == np.float32


@pytest.mark.torch
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model_type", MASKED_LM)
def test_every_family_equals_sentence_transformers(tmp_path: Path, model_type: str, form: Form) -> None:
    source = write_masked_lm(tmp_path / "source", model_type)
    export(source, tmp_path / "out", replace(TASK, form=form))
    if form == "portable":
        check_portable(tmp_path / "out" / graph_file("fp32"))
    theirs = reference(source, EVERY)
    assert (theirs > 0).any()
    assert (theirs == 0).any()
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_sparse_equal([*model.embed_sparse(EVERY)], theirs)
        assert_sparse_equal([next(model.embed_sparse(text)) for text in EVERY], theirs)


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("function", ["relu", "log1p_relu"])
def test_every_pooling_equals_sentence_transformers(
    tmp_path: Path, strategy: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "CHUNK", 20)  # several chunks, the last of another size
    config = {"pooling_strategy": strategy, "activation_function": function, "embedding_dimension": None}
    source = write_masked_lm(tmp_path / "source", pooling=config)
    manifest = export(source, tmp_path / "out", Options())
    section = manifest.require_sparse()
    assert manifest.tasks == ("sparse",)
    assert section.aggregation == Decision(strategy, "file", "1_SpladePooling/config.json: pooling_strategy")
    assert section.dimension == len(VOCAB)
    assert manifest.variants["fp32"].operators["MatMul"] >= 5
    theirs = reference(source, EVERY)
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_sparse_equal([*model.embed_sparse(EVERY)], theirs)


@pytest.mark.torch
def test_modernbert_equals_sentence_transformers(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    source = write_masked_lm(tmp_path / "source")
    values: dict[str, Any] = {
        "vocab_size": len(VOCAB),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    values |= {
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "classifier_activation": "silu",
    }
    config = transformers.ModernBertConfig(**values, bos_token_id=2, cls_token_id=2, sep_token_id=3, eos_token_id=3)
    built = transformers.ModernBertForMaskedLM(config)
    for name, tensor in built.named_parameters():
        tensor.data.normal_(1.0 if "norm" in name else 0.0, 0.15)
    built.save_pretrained(source)
    change_json(source / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    export(source, tmp_path / "out", TASK)
    theirs = reference(source, EVERY)
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_sparse_equal([*model.embed_sparse(EVERY)], theirs)


@pytest.mark.torch
def test_padding_on_either_side_changes_nothing(folder: Path, model: OnnxEmbedder) -> None:
    """The graph itself, whose maximum must not see padding."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    tokens = model.tokenize("the cat")
    alone = {name: np.array([values], np.int64) for name, values in _feeds(tokens.ids).items()}
    (expected,) = session.run(["sparse_embedding"], alone)
    for widths in ([(0, 0), (0, 5)], [(0, 1), (0, 9)]):
        padded = {name: np.pad(array, widths) for name, array in alone.items()}
        (row, *others) = session.run(["sparse_embedding"], padded)[0]
        assert np.abs(row - expected[0]).max() <= 1e-6
        assert not np.any(others)  # a text without tokens has no weights
    left = {name: np.pad(array, [(0, 0), (5, 0)]) for name, array in alone.items()}
    (row,) = session.run(["sparse_embedding"], left)[0]
    theirs = _padded_left(folder.parent / "source", left)
    assert np.abs(row - theirs).max() <= 1e-5


def _feeds(ids: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _padded_left(source: Path, feeds: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """SPLADE's formula on transformers' own logits."""
    torch: Any = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    built = transformers.AutoModelForMaskedLM.from_pretrained(source, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = built(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits
        weights = torch.log1p(torch.relu(logits)) * torch.from_numpy(feeds["attention_mask"])[..., None]
        expected: NDArray[np.float32] = weights.amax(dim=1)[0].numpy()
    return expected


@pytest.mark.torch
def test_an_untied_decoder_is_used(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    table = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.weight"] = np.ascontiguousarray(table[::-1])
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"][::-1].copy()
    save_file(weights, source / "model.safetensors")
    change_json(source / "config.json", tie_word_embeddings=False)
    export(source, tmp_path / "out", TASK)
    with OnnxEmbedder(tmp_path / "out") as model:
        assert_sparse_equal([*model.embed_sparse(TEXTS)], reference(source, TEXTS))


def test_half_precision_is_near(tmp_path: Path) -> None:
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    export(write_masked_lm(tmp_path / "source"), tmp_path / "out", Options(precisions, Flags(task="sparse")))
    full, half = (
        [*OnnxEmbedder(tmp_path / "out", precision=precision).embed_sparse(TEXTS)] for precision in precisions
    )
    for ours, theirs in zip(half, full, strict=True):
        wide, other = (embedding.as_dict() for embedding in (ours, theirs))
        assert all(abs(wide.get(token, 0) - other.get(token, 0)) < 0.01 for token in {*wide, *other})


def test_a_text_is_the_same_alone_and_among_others(model: OnnxEmbedder) -> None:
    for text, among in zip(EVERY, model.embed_sparse(EVERY), strict=True):
        alone = next(model.embed_sparse([text]))
        assert alone.indices.tolist() == among.indices.tolist()
        assert np.abs(alone.values - among.values).max(initial=0) <= 1e-6


def test_indices_are_ascending_and_every_value_is_above_0(model: OnnxEmbedder) -> None:
    for embedding in model.embed_sparse(TEXTS):
        assert (np.diff(embedding.indices) > 0).all()
        assert (embedding.values > 0).all()
        assert embedding.as_object() == {"indices": embedding.indices, "values": embedding.values}


def test_weights_are_decoded_to_tokens(model: OnnxEmbedder) -> None:
    embedding = next(model.embed_sparse("the cat"))
    decoded = model.decode_sparse(embedding)
    named = {
        token: embedding.as_dict()[VOCAB.index(token)]
        for token in ("the", "##b")
        if VOCAB.index(token) in embedding.indices
    }
    assert named
    assert named.items() <= dict(decoded).items()
    assert len(decoded) == len(embedding)
    assert [weight for _, weight in decoded] == sorted(embedding.values.tolist(), reverse=True)
    assert model.decode_sparse(embedding, top_k=3) == decoded[:3]
    with pytest.raises(UsageError, match="top_k"):
        model.decode_sparse(embedding, top_k=0)


def test_a_prompt_goes_before_the_text(model: OnnxEmbedder) -> None:
    prompted, whole = next(model.embed_sparse("cat", prompt="the ")), next(model.embed_sparse("the cat"))
    assert prompted.as_dict() == whole.as_dict()


def test_a_task_the_model_does_not_do_is_an_error(model: OnnxEmbedder, artifact: Path) -> None:
    for ask in (model.embed, model.encode, model.query_embed):
        with pytest.raises(
            UsageError,
            match=r"made for sparse \(OnnxEmbedder.embed_sparse, onnxembed embed --sparse\), not for embedding",
        ):
            ask("a")
    with pytest.raises(UsageError, match="not for multi_vector"):
        model.embed_multi_vector("a")
    with OnnxEmbedder(artifact) as dense, pytest.raises(UsageError, match=r"embedding \(OnnxEmbedder.embed, "):
        dense.embed_sparse("a")


def test_bad_texts_and_a_closed_model_are_errors(folder: Path) -> None:
    model = OnnxEmbedder(folder)
    with pytest.raises(UsageError, match=r"texts\[1\] is NoneType"):
        list(model.embed_sparse(["a", None]))  # type: ignore[list-item]
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.embed_sparse("a")


# Weights of tokens gathered by the runtime


def section(aggregation: Any, *dropped: int) -> Sparse:
    return Sparse(
        activation=Decision("relu", "file", ""),
        aggregation=Decision(aggregation, "file", ""),
        aggregated_by="runtime",
        dropped_token_ids=Decision(dropped, "file", ""),
        dimension=10,
    )


@pytest.mark.parametrize(("aggregation", "expected"), [("max", {3: 2.0, 5: 1.0}), ("sum", {3: 2.5, 5: 1.0})])
def test_weights_are_gathered_by_token(aggregation: str, expected: dict[int, float]) -> None:
    feeds = {
        "input_ids": np.array([[5, 3, 9, 3, 7, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1, 1, 0]]),
    }
    weights = np.array([[1.0, 0.5, 8.0, 2.0, 0.0, 4.0]], np.float32)
    (embedding,) = sparse_embeddings(section(aggregation, 9), weights, feeds)
    assert embedding.as_dict() == expected
    assert len(embedding) == 2


# Checkpoints that are wrong


def refused(source: Path, *words: str, options: Options = TASK) -> bool:
    output = source.parent / "refused"
    with pytest.raises(OnnxEmbedError) as caught:
        export(source, output, options)
    assert isinstance(caught.value, ModelFilesError | UnsupportedError | UsageError)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    return not output.exists()


def test_a_plain_checkpoint_is_sparse_only_when_told_so(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source")
    assert refused(source, "does not say how to pool its tokens (it has no modules.json)", options=Options())


def test_a_checkpoint_without_the_head_is_named(tmp_path: Path) -> None:
    source = write_sentence_bert(tmp_path / "source")
    assert refused(source, "config.json", "BertModel", "ForMaskedLM")
    change_json(source / "config.json", architectures=["BertForMaskedLM"])
    assert refused(source, "cls.predictions.transform.dense.weight")


def test_a_head_of_another_width_is_named(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source")
    change_weights(source, lambda name, tensor: tensor[:-1] if name == "cls.predictions.bias" else tensor)
    assert refused(source, "cls.predictions.bias", f"({len(VOCAB) - 1},)", f"({len(VOCAB)},)")


def test_an_untied_decoder_that_is_missing_is_named(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source")
    change_json(source / "config.json", tie_word_embeddings=False)
    assert refused(source, "cls.predictions.decoder.weight")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pooling_strategy": "mean"}, ["1_SpladePooling/config.json", "'mean'"]),
        ({"activation_function": "gelu"}, ["activation_function", "'gelu'"]),
        ({"chunks": 3}, ["1_SpladePooling/config.json", "chunks"]),
    ],
)
def test_an_unknown_pooling_is_named(tmp_path: Path, config: dict[str, Any], words: list[str]) -> None:
    assert refused(write_masked_lm(tmp_path / "source", pooling=config), *words, options=Options())


def test_a_sparse_encoder_with_other_modules_is_refused(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source", pooling={})
    modules = json.loads((source / "modules.json").read_text())
    modules.append(
        {
            **modules[1],
            "name": "2",
            "path": "2",
            "type": "sentence_transformers.sparse_encoder.modules.SparseAutoEncoder",
        }
    )
    (source / "modules.json").write_text(json.dumps(modules))
    assert refused(source, "modules.json", "SparseAutoEncoder", options=Options())


def test_flags_of_dense_embeddings_are_refused(tmp_path: Path) -> None:
    source = write_masked_lm(tmp_path / "source", pooling={})
    assert refused(source, "--pooling", options=Options(flags=Flags(pooling=("mean",))))


# Scores


def test_the_score_is_the_product_over_shared_ids() -> None:
    one = SparseEmbedding(np.array([1, 4, 7]), np.array([1, 2, 3], np.float32))
    other = SparseEmbedding(np.array([0, 4, 7]), np.array([5, 0.5, 2], np.float32))
    none = SparseEmbedding(np.array([], np.int64), np.array([], np.float32))
    assert sparse_dot(one, other) == 7.0
    assert sparse_dot(one, none) == 0.0


def test_weights_that_add_up_to_zero_are_refused() -> None:
    with pytest.raises(UsageError, match="sum must be above 0"):
        hybrid_score(dense=1.0, sparse=1.0, multi_vector=1.0, weights=(0.0, 0.0, 0.0))


def test_the_combined_score_is_the_published_one() -> None:
    """FlagEmbedding's README (research/BGE_M3/README.md at 7ed43d67ec03), weights 0.4, 0.2, 0.4."""
    scores: dict[str, Any] = {"dense": 0.6259765625, "sparse": 0.195556640625, "multi_vector": 0.7796499729156494}
    assert hybrid_score(**scores, weights=(0.4, 0.2, 0.4)) == pytest.approx(0.6013619303703308, abs=1e-6)
    assert hybrid_score(**scores, weights=(0.4, 0.2, 0.0)) == pytest.approx(0.482503205537796, abs=1e-6)
