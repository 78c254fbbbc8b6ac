"""bge-m3's three kinds of embeddings from one run, against FlagEmbedding's formulas in torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.torch_files import call, text, write_archive, write_torch
from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsupportedError, UsageError
from onnxembed.export.checkpoint.linear import read_linear
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import TEXT_KINDS, graph_file, read_manifest
from onnxembed.similarity import hybrid_score, mean_maxsim, sparse_dot
from portable import check_portable
from tiny import TEXTS, VOCAB, change_json
from tiny_heads import write_bge_m3

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than max_length")

LONG = " ".join(["the cat is in"] * 12)  # longer than the model's 20 tokens
EVERY = [*TEXTS, LONG]
SPECIAL_IDS = tuple(VOCAB.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bge_m3(tmp_path_factory.mktemp("bge-m3") / "source")


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bge-m3") / "out"
    export(source, output, Options(precisions=("fp32", "fp16")))
    return output


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(folder) as opened:
        yield opened


class Reference:
    """FlagEmbedding 1.4, inference/embedder/encoder_only/m3.py and finetune/embedder/encoder_only/m3/modeling.py."""

    def __init__(self, folder: Path) -> None:
        self.torch: Any = pytest.importorskip("torch")
        transformers: Any = pytest.importorskip("transformers")
        self.encoder = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").float().eval()
        load = {"weights_only": True, "map_location": "cpu"}
        self.sparse, self.colbert = (
            {key: tensor.float() for key, tensor in self.torch.load(folder / f"{name}.pt", **load).items()}
            for name in ("sparse_linear", "colbert_linear")
        )

    def __call__(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], unused: tuple[int, ...]
    ) -> tuple[Any, list[dict[int, float]], list[Any]]:
        """Dense [B, D]; the weight of each token id; the vectors [T, D] of each text, padded on the right."""
        torch, linear = self.torch, self.torch.nn.functional.linear
        with torch.no_grad():
            tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            hidden = self.encoder(**tensors).last_hidden_state
            dense = torch.nn.functional.normalize(hidden[:, 0], dim=-1)
            weights = torch.relu(linear(hidden, self.sparse["weight"], self.sparse["bias"]))[..., 0]
            vectors = linear(hidden[:, 1:], self.colbert["weight"], self.colbert["bias"])
            vectors = vectors * tensors["attention_mask"][:, 1:][:, :, None].float()
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        lexical: list[dict[int, float]] = []
        for row, text_weights in zip(ids, weights.numpy(), strict=True):
            token_weights: dict[int, float] = {}
            for token, weight in zip(row.tolist(), text_weights.tolist(), strict=True):
                if token not in unused and weight > 0 and weight > token_weights.get(token, 0):
                    token_weights[token] = weight
            lexical.append(token_weights)
        lengths = mask.sum(axis=1)
        real = [text_vectors[: length - 1].numpy() for text_vectors, length in zip(vectors, lengths, strict=True)]
        return dense.numpy(), lexical, real


def batch(model: OnnxEmbedder, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokens = model.tokenize(texts)
    pad = model.manifest.tokenization.pad_token_id.value
    ids = np.full((len(tokens), max(map(len, tokens))), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, text_tokens in enumerate(tokens):
        ids[row, : len(text_tokens)], mask[row, : len(text_tokens)] = text_tokens.ids, 1
    return ids, mask


def compare(model: OnnxEmbedder, reference: Reference, texts: list[str], unused: tuple[int, ...]) -> None:
    dense, lexical, vectors = reference(*batch(model, texts), unused)
    ours = model.encode_all(texts)
    assert ours.dense is not None
    assert ours.sparse is not None
    assert ours.multi_vector is not None
    assert np.abs(ours.dense - dense).max() <= 1e-5
    for sparse, theirs in zip(ours.sparse, lexical, strict=True):
        assert sparse.indices.tolist() == sorted(theirs)
        assert all(abs(weight - theirs[token]) <= 1e-5 for token, weight in sparse.as_dict().items())
    for one, other in zip(ours.multi_vector, vectors, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0) <= 1e-5


@pytest.mark.torch
def test_all_three_kinds_equal_flagembedding(source: Path, model: OnnxEmbedder) -> None:
    """Together, which pads in the reference, and each text alone."""
    reference = Reference(source)
    compare(model, reference, EVERY, SPECIAL_IDS)
    weighed = sum(map(len, model.embed_sparse(EVERY)))
    assert 0 < weighed < sum(len({*tokens.ids.tolist()} - {*SPECIAL_IDS}) for tokens in model.tokenize(EVERY))
    for one_text in EVERY:
        compare(model, reference, [one_text], SPECIAL_IDS)


@pytest.mark.torch
def test_all_three_kinds_of_a_portable_graph_equal_flagembedding(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "out", Options(form="portable"))
    check_portable(tmp_path / "out" / graph_file("fp32"))
    with OnnxEmbedder(tmp_path / "out") as model:
        compare(model, Reference(source), EVERY, SPECIAL_IDS)


@pytest.mark.torch
def test_the_real_heads(shared_data: Path, tmp_path: Path) -> None:
    """The published heads, on a random XLM-R of their width."""
    source = write_bge_m3(tmp_path / "source", hidden_size=1024, num_attention_heads=16, num_hidden_layers=1)
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        shutil.copyfile(shared_data / "configs/bge-m3" / name, source / name)
    export(source, tmp_path / "out", Options())
    with OnnxEmbedder(tmp_path / "out") as model:
        assert read_manifest(tmp_path / "out").tasks == ("embedding", "sparse", "multi_vector")
        compare(model, Reference(source), EVERY, SPECIAL_IDS)
        assert any(len(embedding) for embedding in model.embed_sparse(EVERY))


def test_one_kind_at_a_time_is_the_same(model: OnnxEmbedder) -> None:
    embeddings = model.encode_all(EVERY)
    assert np.array_equal(embeddings.dense, model.encode(EVERY))  # type: ignore[arg-type]
    for ours, theirs in zip(embeddings.sparse or [], model.embed_sparse(EVERY), strict=True):
        assert ours.as_dict() == theirs.as_dict()
    for one, other in zip(embeddings.multi_vector or [], model.embed_multi_vector(EVERY), strict=True):
        assert np.array_equal(one, other)


def test_only_what_is_asked_for_is_computed(model: OnnxEmbedder) -> None:
    embeddings = model.encode_all(TEXTS, dense=False, multi_vector=False)
    assert (embeddings.dense, embeddings.multi_vector) == (None, None)
    assert len(embeddings.sparse or []) == len(TEXTS)
    with pytest.raises(UsageError, match="no kind of embedding"):
        model.encode_all(TEXTS, dense=False, sparse=False, multi_vector=False)


def test_no_texts_give_no_embeddings(model: OnnxEmbedder) -> None:
    embeddings = model.encode_all([])
    assert embeddings.dense is not None
    assert embeddings.dense.shape == (0, 32)
    assert (embeddings.sparse, embeddings.multi_vector) == ([], [])
    assert [*model.embed_sparse([]), *model.embed_multi_vector([])] == []


def test_queries_and_documents_are_treated_alike(model: OnnxEmbedder) -> None:
    plain, query, document = (next(model.embed_multi_vector("the cat", kind=k)) for k in (None, *TEXT_KINDS))
    assert np.array_equal(plain, query)
    assert np.array_equal(plain, document)


def test_the_first_token_has_no_vector_and_special_tokens_no_weight(model: OnnxEmbedder) -> None:
    tokens = model.tokenize("the cat")
    assert next(model.embed_multi_vector("the cat")).shape == (len(tokens) - 1, 32)
    assert not {*SPECIAL_IDS} & {*next(model.embed_sparse("the cat, ☃")).indices.tolist()}
    section = model.manifest.require_sparse()
    assert section.dropped_token_ids.value == tuple(sorted(SPECIAL_IDS))
    assert section.aggregated_by == "runtime"


def test_half_precision_is_near(folder: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(folder, precision="fp16") as half:
        for ours, theirs in zip(half.embed_multi_vector(TEXTS), model.embed_multi_vector(TEXTS), strict=True):
            assert np.abs(ours - theirs).max() < 0.02


def test_a_task_can_be_left_out(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "out", Options(flags=Flags(task="embedding")))
    with OnnxEmbedder(tmp_path / "out") as dense:
        assert dense.manifest.tasks == ("embedding",)
        with pytest.raises(
            UsageError, match=r"made for embedding \(OnnxEmbedder.embed, onnxembed embed\), not for sparse"
        ):
            dense.embed_sparse("a")
        with pytest.raises(UsageError, match="not for multi_vector"):
            dense.encode_all("a", sparse=False)


def test_heads_may_be_safetensors(source: Path, model: OnnxEmbedder, tmp_path: Path) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    for name in ("sparse_linear", "colbert_linear"):
        weight, bias = read_linear(copy / f"{name}.pt", 32)
        assert bias is not None
        save_file({"weight": weight, "bias": bias}, copy / f"{name}.safetensors")
        (copy / f"{name}.pt").unlink()
    export(copy, tmp_path / "out", Options())
    with OnnxEmbedder(tmp_path / "out") as other:
        assert next(other.embed_sparse("the cat")).as_dict() == next(model.embed_sparse("the cat")).as_dict()


# Heads that are wrong


def refused(source: Path, output: Path, *words: str) -> bool:
    with pytest.raises(OnnxEmbedError) as caught:
        export(source, output, Options())
    assert isinstance(caught.value, ModelFilesError | UnsupportedError)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    return not output.exists()


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "copy")


@pytest.mark.parametrize("name", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_missing_head_is_named(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).unlink()
    assert refused(copy, tmp_path / "out", f"no {name}")


@pytest.mark.parametrize(
    ("name", "tensors", "words"),
    [
        ("sparse_linear.pt", {"weight": (1, 31), "bias": (1,)}, ["(1, 31)", "(1, 32)"]),
        ("sparse_linear.pt", {"weight": (2, 32), "bias": (2,)}, ["(2, 32)", "(1, 32)"]),
        ("colbert_linear.pt", {"weight": (8, 33)}, ["(8, 33)", "(8, 32)"]),
        ("colbert_linear.pt", {"weight": (8, 32), "bias": (7,)}, ["(7,)", "(8,)"]),
        ("colbert_linear.pt", {"weight": (32,)}, ["(32,)"]),
        ("colbert_linear.pt", {"linear.weight": (32, 32)}, ["linear.weight", "weight and bias"]),
    ],
)
def test_a_head_of_another_shape_is_named(
    copy: Path, tmp_path: Path, name: str, tensors: dict[str, tuple[int, ...]], words: list[str]
) -> None:
    write_torch(copy / name, {key: np.zeros(shape, np.float32) for key, shape in tensors.items()})
    assert refused(copy, tmp_path / "out", name, *words)


def test_a_crafted_head_is_refused_and_not_run(copy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    write_archive(copy / "sparse_linear.pt", call("os.system", text(f"touch {proof}")))
    assert refused(copy, tmp_path / "out", "sparse_linear.pt", "os.system")
    assert not proof.exists()
    os.system(f"touch {proof}")  # what it asks for would have been done
    assert proof.exists()


def test_special_tokens_that_the_files_do_not_name_are_asked_for(copy: Path, tmp_path: Path) -> None:
    change_json(copy / "tokenizer_config.json", eos_token=None)
    assert refused(copy, tmp_path / "out", "tokenizer_config.json", "eos_token")


# Scores


@pytest.mark.torch
def test_scores_equal_flagembedding(source: Path, model: OnnxEmbedder) -> None:
    reference = Reference(source)
    query, document = "the cat is that", "it was the cat and a"
    (q_dense, d_dense), (q_lexical, d_lexical), (q_vectors, d_vectors) = reference(
        *batch(model, [query, document]), SPECIAL_IDS
    )
    dense = float(q_dense @ d_dense)
    sparse = sum(weight * d_lexical[token] for token, weight in q_lexical.items() if token in d_lexical)
    colbert = float(np.einsum("qd,td->qt", q_vectors, d_vectors).max(axis=1).sum() / len(q_vectors))
    ours = model.encode_all([query, document])
    assert ours.sparse is not None
    assert ours.multi_vector is not None
    assert sparse > 0
    assert sparse_dot(*ours.sparse) == pytest.approx(sparse, abs=1e-5)
    assert mean_maxsim(*ours.multi_vector) == pytest.approx(colbert, abs=1e-5)
    scores: dict[str, Any] = {"dense": dense, "sparse": sparse, "multi_vector": colbert}
    # FlagEmbedding's order of weights is dense, sparse, colbert.
    combined = (0.4 * dense + 0.2 * sparse + 0.4 * colbert) / (0.4 + 0.2 + 0.4)
    assert hybrid_score(**scores, weights=(0.4, 0.2, 0.4)) == pytest.approx(combined)
    assert hybrid_score(**scores) == pytest.approx(sum(scores.values()) / 3)
