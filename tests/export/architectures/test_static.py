"""Static embeddings: a real model2vec model, tiny ones, and sentence-transformers' StaticEmbedding."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from onnxembed import OnnxEmbedder
from onnxembed.decisions.encoder import UNBOUNDED
from onnxembed.errors import ModelFilesError, UnsupportedError, VerificationError
from onnxembed.export.build_graph import build
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.json_file import read_json
from onnxembed.manifest import Manifest, Precision, graph_file
from parity_table import Architecture, record_differences
from portable import check_portable
from tiny import TEXTS, VOCAB, change_json, write_json, write_tokenizer

FloatArray = NDArray[np.float32]
# Single-precision sums of hundreds of rows, which torch does not sum better.
TOLERANCE = 5e-6

# Nothing but unknown tokens, some, special tokens spelled out, and more tokens than most models take.
MORE = [*TEXTS, "\N{SNOWMAN}", "the \N{SNOWMAN} cat", "[CLS] the [SEP]", "of that " * 300]

STATIC, NORMALIZE = "sentence_transformers.models.StaticEmbedding", "sentence_transformers.models.Normalize"


def table(rows: int = len(VOCAB), width: int = 6) -> FloatArray:
    return np.random.default_rng(3).normal(0, 1, (rows, width)).astype(np.float32)


def assert_close(actual: FloatArray, desired: FloatArray) -> None:
    np.testing.assert_allclose(actual, desired, atol=TOLERANCE, rtol=1e-5)


def write_static(folder: Path, tensors: dict[str, NDArray[Any]], *, normalize: bool = True, **config: Any) -> Path:
    """A model2vec folder as its own save_pretrained writes it."""
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    save_file(tensors, folder / "model.safetensors")
    values = {"model_type": "model2vec", "hidden_dim": 6, "apply_pca": 6, "apply_zipf": True, "seq_length": 1000000}
    write_json(folder / "config.json", {**values, "normalize": normalize, **config})
    kinds = [(".", STATIC), ("1_Normalize", NORMALIZE)][: 1 + normalize]
    write_json(
        folder / "modules.json", [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(kinds)]
    )
    return folder


def expected(folder: Path, texts: Sequence[str], *, normalize: bool = True, unknown: bool = False) -> FloatArray:
    """model2vec's definition in double precision: the mean of the rows of all known tokens."""
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["embeddings" if "embeddings" in tensors else "embedding.weight"].astype(np.float64)
    if "mapping" in tensors:
        rows = rows[tensors["mapping"]]
    if "weights" in tensors:
        rows = rows * tensors["weights"].astype(np.float64)[:, None]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    left_out = None if unknown else tokenizer.token_to_id(tokenizer.model.unk_token)
    vectors = np.zeros((len(texts), rows.shape[1]))
    for place, encoding in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        if ids := [token_id for token_id in encoding.ids if token_id != left_out]:
            vectors[place] = rows[ids].mean(axis=0)
    if normalize:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors.astype(np.float32)


def encoded(folder: Path, out: Path, texts: Sequence[str], **options: Any) -> tuple[FloatArray, Manifest]:
    """The vectors of the texts, which both forms of the graph give."""
    portable_out = out.with_name(f"{out.name}-portable")
    export(folder, portable_out, Options(form="portable", **options))
    check_portable(portable_out / graph_file("fp32"))
    manifest = export(folder, out, Options(**options))
    with OnnxEmbedder(portable_out, providers="cpu") as portable, OnnxEmbedder(out, providers="cpu") as model:
        vectors = model.encode(list(texts))
        assert_close(portable.encode(list(texts)), vectors)
        return vectors, manifest


def test_a_real_model(shared_data: Path, tmp_path: Path) -> None:
    """potion-base-4M with int8 vectors; sentences in many scripts, with many tokens that it does not know."""
    folder = shared_data / "configs/potion-base-4m-int8"
    files = sorted((shared_data / "text/tatoeba").glob("tatoeba.*-*"))
    texts = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts += ["", "\N{SNOWMAN}", " ".join(texts[:10])]
    actual, manifest = encoded(folder, tmp_path / "out", texts, precisions=("fp32", "fp16"))
    reference = expected(folder, texts)
    assert len(texts) > 300
    assert np.abs(actual - reference).max() <= TOLERANCE
    assert np.abs(expected(folder, texts, unknown=True) - reference).max() > 0.1  # unknown tokens do matter
    assert not actual[texts.index("")].any()
    assert manifest.tokenization.max_length.value == 512  # model2vec's default: its files are older than the key
    assert manifest.model.inputs == ("input_ids", "attention_mask")
    assert (tmp_path / "out/onnx/model.onnx").stat().st_size < 4_000_000  # int8 stays int8
    with OnnxEmbedder(tmp_path / "out", precision="fp16", providers="cpu") as model:
        assert np.abs(model.encode(texts) - reference).max() <= TOLERANCE  # its numbers are exact in halves, too


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_every_type_with_and_without_normalizing(dtype: Any, normalize: bool, tmp_path: Path) -> None:
    vectors = (table() * 20).astype(dtype)
    folder = write_static(tmp_path / "model", {"embeddings": vectors}, normalize=normalize)
    actual, manifest = encoded(folder, tmp_path / "out", MORE)
    assert_close(actual, expected(folder, MORE, normalize=normalize))
    assert manifest.require_embedding().normalize.value is normalize
    assert not actual[TEXTS.index("")].any()
    assert not actual[MORE.index("\N{SNOWMAN}")].any()


@pytest.mark.parametrize("mapping_type", [np.int64, np.int32])
@pytest.mark.parametrize("parts", [("mapping",), ("weights",), ("mapping", "weights")])
def test_a_table_shared_and_weighted_by_token(parts: tuple[str, ...], mapping_type: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = 11 if "mapping" in parts else len(VOCAB)
    tensors: dict[str, NDArray[Any]] = {"embeddings": table(rows)}
    if "mapping" in parts:
        tensors["mapping"] = rng.integers(0, rows, len(VOCAB)).astype(mapping_type)
    if "weights" in parts:
        tensors["weights"] = rng.uniform(0.1, 2, len(VOCAB)).astype(np.float32)
    folder = write_static(tmp_path / "model", tensors, vocabulary_quantization=11, embedding_dtype="float32")
    actual, _ = encoded(folder, tmp_path / "out", MORE)
    assert_close(actual, expected(folder, MORE))


@pytest.mark.parametrize("normalize", [True, False])
def test_without_modules_its_config_says_whether_to_normalize(normalize: bool, tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()}, normalize=normalize)
    (folder / "modules.json").unlink()
    actual, manifest = encoded(folder, tmp_path / "out", MORE)
    assert_close(actual, expected(folder, MORE, normalize=normalize))
    assert manifest.require_embedding().normalize.reason == f"config.json: normalize is {json.dumps(normalize)}"


def test_a_text_is_the_same_alone_and_beside_longer_texts(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    together, _ = encoded(folder, tmp_path / "out", MORE)
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        for text, vector in zip(MORE, together, strict=True):
            assert_close(model.encode([text])[0], vector)


@pytest.mark.torch
def test_an_export_is_verified_and_a_wrong_one_is_not(shared_data: Path, tmp_path: Path) -> None:
    """The built-in probes have unknown tokens, an empty text and texts of thousands of tokens."""
    verify = pytest.importorskip("onnxembed.verify.verify").verify
    pytest.importorskip("sentence_transformers", reason="needs the [torch] extra")
    source = shared_data / "configs/potion-base-4m-int8"
    export(source, tmp_path / "out", Options(precisions=("fp32", "fp16")))
    assert verify(tmp_path / "out").verification.keys() == {"fp32", "fp16"}
    other = write_static(tmp_path / "other", {"embeddings": table()})
    export(other, tmp_path / "wrong")
    save_file({"embeddings": table() + 1}, other / "model.safetensors")
    with pytest.raises(VerificationError, match="vectors are"):
        verify(tmp_path / "wrong")


@pytest.mark.torch
@pytest.mark.parametrize("normalize", [True, False])
def test_layers_after_the_table_are_compared_with_sentence_transformers(normalize: bool, tmp_path: Path) -> None:
    verify = pytest.importorskip("onnxembed.verify.verify").verify
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the [torch] extra")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer(tmp_path / "tokenizer")
    static = modules.StaticEmbedding(Tokenizer.from_file(str(tmp_path / "tokenizer/tokenizer.json")), table())
    parts = [static, modules.Dense(6, 4), modules.LayerNorm(4), modules.Normalize()][: 3 + normalize]
    reference = sentence_transformers.SentenceTransformer(modules=parts, device="cpu")
    reference.save(str(tmp_path / "model"))
    actual, _ = encoded(tmp_path / "model", tmp_path / "out", MORE)
    assert_close(actual, reference.encode(MORE))
    assert verify(tmp_path / "out").verification.keys() == {"fp32"}
    dense = next((tmp_path / "model").glob("*_Dense")) / "model.safetensors"
    save_file({name: 1.1 * tensor for name, tensor in load_file(dense).items()}, dense)
    with pytest.raises(VerificationError, match="vectors are"):
        verify(tmp_path / "out")


@pytest.mark.torch
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("subfolder", ["", "0_StaticEmbedding"])
def test_equals_sentence_transformers(subfolder: str, normalize: bool, tmp_path: Path) -> None:
    """A StaticEmbedding saved by sentence-transformers: it has no config.json, and unknown tokens count."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the [torch] extra")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer(tmp_path / "tokenizer")
    static = modules.StaticEmbedding(Tokenizer.from_file(str(tmp_path / "tokenizer/tokenizer.json")), table())
    parts = [static, modules.Normalize()][: 1 + normalize]
    reference = sentence_transformers.SentenceTransformer(modules=parts, device="cpu")
    reference.save(str(tmp_path / "model"))
    listed = json.loads((tmp_path / "model/modules.json").read_text(encoding="utf-8"))
    if listed[0]["path"] != subfolder:
        for file in ("model.safetensors", "tokenizer.json"):
            (tmp_path / "model" / subfolder).mkdir(exist_ok=True)
            shutil.move(tmp_path / "model" / listed[0]["path"] / file, tmp_path / "model" / subfolder / file)
        write_json(tmp_path / "model/modules.json", [{**listed[0], "path": subfolder}, *listed[1:]])
        reference = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    actual, manifest = encoded(tmp_path / "model", tmp_path / "out", MORE)
    theirs = reference.encode(MORE)
    assert_close(actual, theirs)
    assert manifest.model.model_type == "static_embedding"
    architecture = Architecture("static_embedding", "build", manifest.model.attention.value)
    record_differences(architecture, {"hidden_size": 6}, {"mean": float(np.abs(actual - theirs).max())})


@pytest.mark.torch
def test_a_real_model_in_sentence_transformers(shared_data: Path, tmp_path: Path) -> None:
    """It counts unknown tokens and cannot read int8, so the table is float and all tokens of the texts are known."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the [torch] extra")
    source, folder = shared_data / "configs/potion-base-4m-int8", tmp_path / "model"
    folder.mkdir()
    for file in ("config.json", "modules.json", "tokenizer.json"):
        shutil.copyfile(source / file, folder / file)
    vectors = load_file(source / "model.safetensors")["embeddings"].astype(np.float32)
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    texts = ["hello world", "The quick brown fox jumps over the lazy dog.", "antidisestablishmentarianism, 1984!", ""]
    actual, _ = encoded(folder, tmp_path / "out", texts)
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert_close(actual, reference.encode(texts))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_a_look_up_and_a_mean(precision: Precision, tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    facts = read_facts(folder)
    operators = build(make_plan(facts, None, Options()), precision).operators()
    assert operators["Gather"] == 1
    assert sum(operators.values()) == 15 + (precision == "fp16")
    assert operators["MatMul"] == 1  # the mean
    assert not {"If", "MultiHeadAttention"} & operators.keys()


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    export(folder, tmp_path / "out", Options(precisions=("fp16",)))
    texts = [text for text in MORE if text not in ("", "\N{SNOWMAN}")]
    with OnnxEmbedder(tmp_path / "out", providers="cpu", precision="fp16") as model:
        assert (model.encode(texts) * expected(folder, texts)).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pooling": "first"}, UnsupportedError, "does not know: pooling"),
        ({"normalize": "yes"}, ModelFilesError, "normalize is 'yes', not true or false"),
    ],
)
def test_a_config_that_is_not_built_is_named(
    change: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    change_json(folder / "config.json", **change)
    with pytest.raises(error, match=words):
        export(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({"embeddings": table(9)}, ModelFilesError, r"tokenizer\.json has 86 tokens, the weights only 9 rows"),
        ({"embeddings": table(), "mapping": np.zeros(9, np.int64)}, ModelFilesError, "only 9 rows"),
        ({"embeddings": table(), "bias": table()}, UnsupportedError, "as bias"),
        ({"vectors": table()}, ModelFilesError, "no tensor embeddings"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tensors: dict[str, NDArray[Any]], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        export(write_static(tmp_path / "model", tensors), tmp_path / "out")


def test_a_static_model_cannot_leave_pooling_to_the_runtime(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    with pytest.raises(UnsupportedError, match="--pooling-out"):
        export(folder, tmp_path / "out", Options(pooling_out=True))


def test_a_static_embedding_without_a_readable_table_is_named(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "model", {"embeddings": table()})
    (folder / "config.json").unlink()
    with pytest.raises(ModelFilesError, match="is not the table of a StaticEmbedding"):
        read_facts(folder)


# ---- limits, and the unknown token of a Unigram


@pytest.mark.parametrize(
    ("config", "limit", "origin"),
    [({"max_length": 7}, 7, "file"), ({}, 512, "architecture"), ({"max_length": None}, UNBOUNDED, "architecture")],
)
def test_the_limit_is_model2vecs(config: dict[str, Any], limit: int, origin: str, tmp_path: Path) -> None:
    """model2vec 0.10 writes max_length, 512 by default; null turns it off. It cuts before it leaves unknowns out."""
    folder = write_static(tmp_path / "model", {"embeddings": table()}, normalize=False, **config)
    manifest = export(folder, tmp_path / "out")
    assert (manifest.tokenization.max_length.value, manifest.tokenization.max_length.origin) == (limit, origin)
    text = "x y " * 8
    tokens = [VOCAB.index(letter) for letter in "xy" * 8]
    kept = tokens if limit > 16 else tokens[:limit]
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close(model.encode([text]), table()[kept].mean(axis=0)[None])


def test_a_text_is_cut_by_characters_first(tmp_path: Path) -> None:
    """At max_length times the median length of a token, line breaks included: here 3 times 2 of them."""
    folder = write_static(tmp_path / "model", {"embeddings": table()}, normalize=False, max_length=3)
    lengths = [len(token) for token in set(VOCAB)]
    kept = 3 * int(np.median(lengths))
    export(folder, tmp_path / "out")
    text = "x\n" + " " * (kept - 3) + "y" + "z"
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        rows = table()[[VOCAB.index("x"), VOCAB.index("y")]]
        assert_close(model.encode([text]), rows.mean(axis=0)[None])


@pytest.mark.parametrize(
    "saved_by", ["model2vec", "model2vec alone", pytest.param("sentence-transformers", marks=pytest.mark.torch)]
)
def test_tokenizer_json_alone_says_how_texts_are_cut(tmp_path: Path, saved_by: str) -> None:
    """Whatever lies beside it, as both references read it; the class named there would make lower-case texts."""
    if saved_by.startswith("model2vec"):
        folder = write_static(tmp_path / "model", {"embeddings": table()})
    else:
        modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
        write_tokenizer(tmp_path)
        static = modules.StaticEmbedding(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), table())
        folder = tmp_path / "model"
        import_module("sentence_transformers").SentenceTransformer(modules=[static]).save(str(folder))
    change_json(folder / "tokenizer.json", normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"})
    named = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "truncation_side": "left", "sep_token": "[S]"}
    write_json(folder / "tokenizer_config.json", {**named, "add_eos_token": True, "eos_token": "[SEP]"})
    if saved_by.startswith("model2vec"):
        change_json(folder / "config.json", tokenizer_class="BertTokenizer")
    if saved_by == "model2vec alone":
        (folder / "modules.json").unlink()
    manifest = export(folder, tmp_path / "out")
    assert manifest.tokenization.truncation_side.value == "right"
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with OnnxEmbedder(tmp_path / "out") as model:
        for text in ("The cat", "the cat", "the.cat", "[S] the"):
            assert model.tokenize(text).ids.tolist() == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(("side", "kept"), [("Right", "xyz"), ("Left", "zvw")])
def test_a_static_embedding_is_cut_as_its_tokenizer_says(tmp_path: Path, side: str, kept: str) -> None:
    """sentence-transformers' StaticEmbedding keeps the truncation of tokenizer.json."""
    folder = write_static(tmp_path / "model", {"embedding.weight": table()}, normalize=False)
    (folder / "config.json").unlink()
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"direction": side, "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    write_json(folder / "tokenizer.json", {**state, "truncation": cut})
    manifest = export(folder, tmp_path / "out")
    assert manifest.tokenization.max_length.reason == "tokenizer.json: truncation.max_length"
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = table()[[VOCAB.index(letter) for letter in kept]]
        assert_close(model.encode(["x y z v w"]), rows.mean(axis=0)[None])


def test_the_unknown_token_of_a_unigram_is_left_out(tmp_path: Path) -> None:
    """A Unigram names it by id. With model2vec installed, the vectors are its own."""
    folder = write_static(tmp_path / "model", {"embeddings": table(4)}, normalize=True, max_length=None)
    pieces = [("<unk>", 0.0), ("\u2581the", -1.0), ("\u2581cat", -1.0), ("\u2581", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    export(folder, tmp_path / "out")
    texts = ["the cat", "the \N{SNOWMAN} cat", "\N{SNOWMAN}"]
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        actual = model.encode(texts)
    sums = np.stack([table(4)[rows].mean(axis=0) for rows in ([1, 2], [1, 3, 2], [3])])
    assert_close(actual, sums / np.linalg.norm(sums, axis=1, keepdims=True))
    if find_spec("model2vec") is not None:
        assert_close(actual, import_module("model2vec").StaticModel.from_pretrained(folder).encode(texts))


def unigram() -> Tokenizer:
    pieces = [("<unk>", 0.0), *[(f"\u2581{word}", -1.0) for word in ("the", "cat", "sat", "dog")], ("\u2581", -2.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *[(letter, -3.0) for letter in "abcdef"]], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clusters", [None, 5])
@pytest.mark.parametrize("stored", ["float32", "float16", "float64", "int8"])
@pytest.mark.parametrize("reading", [(False, None), (True, None), (True, 3)])
@pytest.mark.filterwarnings("ignore:.* longer than max_length=3 tokens")
def test_every_storage_of_model2vec_gives_its_vectors(
    weighted: bool, clusters: int | None, stored: str, reading: tuple[bool, int | None], tmp_path: Path
) -> None:
    """With weights, with a mapping of tokens to fewer rows (vocabulary quantization), in each type of numbers."""
    normalize, limit = reading
    model2vec = pytest.importorskip("model2vec", reason="needs model2vec, which makes and reads the model")
    tokenizer = unigram()
    tokens, rng = tokenizer.get_vocab_size(), np.random.default_rng(0)
    mapping = None if clusters is None else rng.integers(0, clusters, tokens)
    rows = rng.normal(size=(clusters or tokens, 16)).astype(np.float32)
    table = np.rint(rows * 40).astype(np.int8) if stored == "int8" else rows.astype(stored)
    made = model2vec.StaticModel(
        table,
        tokenizer,
        {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": 16, "normalize": normalize},
        normalize=normalize,
        weights=rng.uniform(0.1, 2, tokens).astype(np.float32) if weighted or clusters else None,
        token_mapping=mapping,
        max_length=limit,
    )
    made.save_pretrained(str(tmp_path / "model"))
    export(tmp_path / "model", tmp_path / "out")
    texts = ["the cat sat", "the \N{SNOWMAN} dog", "\N{SNOWMAN}", "", "bad cab", "the cat " * 9]
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        actual = model.encode(texts)
    expected = model2vec.StaticModel.from_pretrained(str(tmp_path / "model")).encode(texts).astype(np.float64)
    assert np.abs(actual - expected).max() <= (4e-3 if stored == "float16" else 1e-6) * max(1, np.abs(expected).max())


@pytest.mark.parametrize("hidden_dim", [{"hidden_dim": 7}, {"hidden_dim": 2}, {"hidden_dim": None}])
@pytest.mark.parametrize("modules", [True, False])
def test_the_width_is_the_tables_whatever_the_config_says(
    hidden_dim: dict[str, Any], modules: bool, tmp_path: Path
) -> None:
    """model2vec never reads hidden_dim, and leaves it alone when it keeps fewer dimensions."""
    folder = write_static(tmp_path / "model", {"embeddings": table()}, **hidden_dim)
    if not modules:
        (folder / "modules.json").unlink()
    actual, manifest = encoded(folder, tmp_path / "out", MORE)
    assert manifest.require_embedding().dimension == 6
    assert_close(actual, expected(folder, MORE))


@pytest.mark.parametrize("clusters", [None, 5])
def test_fewer_dimensions_of_model2vec_give_its_vectors(clusters: int | None, tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec", reason="needs model2vec, which makes and reads the model")
    tokenizer = unigram()
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": 6, "normalize": True}
    whole = model2vec.StaticModel(table(tokenizer.get_vocab_size()), tokenizer, config)
    made = model2vec.quantize_model(whole, dimensionality=4, vocabulary_quantization=clusters)
    made.save_pretrained(str(tmp_path / "model"))
    assert read_json(tmp_path / "model/config.json")["hidden_dim"] == 6  # what it was
    texts = ["the cat sat", "the \N{SNOWMAN} dog", "", "bad cab"]
    actual, _ = encoded(tmp_path / "model", tmp_path / "out", texts)
    reference = model2vec.StaticModel.from_pretrained(str(tmp_path / "model")).encode(texts)
    assert actual.shape == reference.shape == (len(texts), 4)
    assert np.abs(actual - reference).max() <= 1e-6
