"""Multi-vector embeddings (ColBERT) against sentence-transformers' MultiVectorEncoder, in all three published forms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsupportedError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import Decision, MultiVector, QueryExpansion, TextKind, graph_file
from onnxembed.runtime.outputs.multi_vector import prepare, treats_alike
from onnxembed.similarity import maxsim, mean_maxsim
from portable import check_portable
from tampering import change_weights
from tiny import TEXTS, VOCAB, change_json, write_bert
from tiny_heads import write_colbert_encoder, write_pylate, write_stanford_colbert

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than max_length")

TEXT_KINDS: tuple[TextKind, ...] = ("query", "document")
LONG = " ".join(["the cat is in."] * 12)
EVERY = [*TEXTS, ".", "[Q] the [unused0]", "[UNUSED0] it", LONG]
FIXED = {"strategy": "fixed", "attend": False, "token": None, "length": 8}

FORMS: dict[str, Callable[[Path], Path]] = {
    "fixed": lambda folder: write_colbert_encoder(folder, expansion=FIXED, document_length=16),
    "attended": lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "attend": True}, document_length=16),
    "min": lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "strategy": "min"}, query_length=14),
    "min without a limit": lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "strategy": "min"}),
    "another token": lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "token": "the"}),
    "no expansion": lambda folder: write_colbert_encoder(folder, query_length=7, document_length=16),
    "nothing but the projection": lambda folder: write_colbert_encoder(folder, skip=(), normalize=False),
    "two projections": lambda folder: write_colbert_encoder(folder, dimensions=(20, 12)),
    "skipped in none": lambda folder: write_colbert_encoder(folder, expansion=FIXED, skip_in=()),
    "skipped in both": lambda folder: write_colbert_encoder(folder, expansion=FIXED, skip_in=("query", "document")),
    "stanford": write_stanford_colbert,
    "stanford, attended": lambda folder: write_stanford_colbert(folder, attend_to_mask_tokens=True),
    "stanford, punctuation kept": lambda folder: write_stanford_colbert(folder, mask_punctuation=False),
    "pylate": write_pylate,
    "pylate, attended": lambda folder: write_pylate(folder, attend_to_expansion_tokens=True),
    "pylate, no expansion": lambda folder: write_pylate(folder, do_query_expansion=False),
    "pylate, defaults": lambda folder: write_pylate(folder, skiplist_words=None, query_length=None),
    "documents shorter than queries": lambda folder: write_colbert_encoder(folder, query_length=14, document_length=7),
    "pylate, prompts": lambda folder: write_pylate(folder, prompts={"query": "is ", "document": "[D] it "}),
}


def reference(folder: Path, texts: list[str], kind: TextKind) -> list[NDArray[np.float32]]:
    """The vectors of sentence-transformers: [T, D] for each text, all texts in one padded batch."""
    torch: Any = pytest.importorskip("torch")
    sentence_transformers: Any = pytest.importorskip("sentence_transformers")
    loading = {"attn_implementation": "eager", "dtype": torch.float32}
    encoder = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu", model_kwargs=loading)
    encode = encoder.encode_query if kind == "query" else encoder.encode_document
    vectors: list[NDArray[np.float32]] = encode(
        texts, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False
    )
    return vectors


def assert_token_vectors_equal(ours: list[NDArray[np.float32]], theirs: list[NDArray[np.float32]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
        assert np.abs(one - other).max(initial=0) <= 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_sentence_transformers(tmp_path: Path, form: str) -> None:
    """Queries and documents, together and alone; markers spelled out in a text, only punctuation, and cut texts."""
    source = FORMS[form](tmp_path / "source")
    manifest = export(source, tmp_path / "out", Options())
    assert manifest.tasks == ("multi_vector",)
    export(source, tmp_path / "portable", Options(form="portable"))
    check_portable(tmp_path / "portable" / graph_file("fp32"))
    with OnnxEmbedder(tmp_path / "out") as model, OnnxEmbedder(tmp_path / "portable") as portable:
        assert model.dimension == 12
        for kind in TEXT_KINDS:
            theirs = reference(source, EVERY, kind)
            assert_token_vectors_equal([*portable.embed_multi_vector(EVERY, kind=kind)], theirs)
            assert_token_vectors_equal([*model.embed_multi_vector(EVERY, kind=kind)], theirs)
            assert_token_vectors_equal([next(model.embed_multi_vector(text, kind=kind)) for text in EVERY], theirs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("colbert")
    export(FORMS["fixed"](place / "source"), place / "out", Options(precisions=("fp32", "fp16")))
    return place / "out"


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(folder) as opened:
        yield opened


def test_the_manifest_says_what_was_decided_and_why(model: OnnxEmbedder) -> None:
    section = model.manifest.require_multi_vector()
    file = "sentence_bert_config.json"
    expansion = QueryExpansion(VOCAB.index("[MASK]"), 8, attended=False, longer="cut")
    assert section.query_expansion == Decision(expansion, "file", f"{file}: query_expansion")
    assert section.query_length.value == 8
    assert model.manifest.tokenization.max_length == Decision(16, "file", f"{file}: document_length")
    assert section.skipped_token_ids.value == tuple(sorted((VOCAB.index("."), VOCAB.index(","))))
    assert section.skipped_in == ("document",)
    assert section.normalize.value


def test_markers_become_tokens_of_their_own(tmp_path: Path) -> None:
    manifest = export(write_stanford_colbert(tmp_path / "source"), tmp_path / "out", Options())
    assert "'[unused0]' made one token, the marker of a multi-vector model" in manifest.tokenization.changes
    assert manifest.prompts.texts.value == {"query": "[unused0] ", "document": "[unused1] "}
    with OnnxEmbedder(tmp_path / "out") as model:
        tokens = model.tokenize("[unused0] the")
        assert tokens.ids.tolist() == [VOCAB.index(token) for token in ("[CLS]", "##q", "the", "[SEP]")]


def test_query_or_document_must_be_named(model: OnnxEmbedder) -> None:
    for kind in (None, "passage"):
        with pytest.raises(UsageError, match=f"kind is {kind!r}, not 'query' or 'document'"):
            model.embed_multi_vector("a", kind=kind)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="embed_multi_vector"):
        model.encode_all("a", dense=False, sparse=False)


def test_a_prompt_of_the_callers_own_wins(model: OnnxEmbedder) -> None:
    own = next(model.embed_multi_vector("the cat", kind="document", prompt=""))
    assert len(own) == len(model.tokenize("the cat"))
    assert len(next(model.embed_multi_vector("the cat", kind="document"))) > len(own)


def test_a_text_is_the_same_alone_and_among_others(model: OnnxEmbedder) -> None:
    for kind in TEXT_KINDS:
        for text, among in zip(EVERY, model.embed_multi_vector(EVERY, kind=kind), strict=True):
            assert np.abs(next(model.embed_multi_vector(text, kind=kind)) - among).max(initial=0) <= 1e-6


def test_vectors_have_length_1_in_either_precision(folder: Path, model: OnnxEmbedder) -> None:
    with OnnxEmbedder(folder, precision="fp16") as half:
        pairs = zip(
            model.embed_multi_vector(TEXTS, kind="query"), half.embed_multi_vector(TEXTS, kind="query"), strict=True
        )
        for full, other in pairs:
            assert np.linalg.norm(full, axis=1) == pytest.approx(1, abs=1e-6)
            assert np.abs(full - other).max() < 0.02


@pytest.mark.torch
def test_padding_on_the_left_changes_nothing_but_positions(tmp_path: Path) -> None:
    """The graph on a batch padded on the left, against transformers' encoder on the same."""
    torch: Any = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    import onnxruntime
    from safetensors.numpy import load_file

    source = FORMS["no expansion"](tmp_path / "source")
    export(source, tmp_path / "out", Options())
    session = onnxruntime.InferenceSession(str(tmp_path / "out/onnx/model.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([[0, 0, 0, 2, 7, 9, 3], [2, 8, 9, 10, 11, 12, 3]], np.int64)
    mask = (ids > 0).astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    (ours,) = session.run(["multi_vector"], {value.name: feeds[value.name] for value in session.get_inputs()})
    encoder = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    with torch.no_grad():
        hidden = encoder(**{name: torch.from_numpy(array) for name, array in feeds.items()}).last_hidden_state
    theirs = hidden.numpy() @ load_file(source / "1_Dense/model.safetensors")["linear.weight"].T
    theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
    assert np.abs(ours - theirs)[mask == 1].max() <= 1e-5


# What goes into the graph


def section(expansion: QueryExpansion | None = None, **options: Any) -> MultiVector:
    values: dict[str, Any] = {
        "normalize": Decision(True, "file", ""),
        "first_token": Decision(True, "file", ""),
        "query_length": Decision(None, "file", ""),
        "document_length": Decision(None, "file", ""),
        "query_expansion": Decision(expansion, "file", ""),
        "skipped_token_ids": Decision((), "file", ""),
        "skipped_in": (),
        "dimension": 4,
    }
    return MultiVector(**{**values, **options})


FEEDS = {"input_ids": np.array([[1, 5, 2], [1, 2, 0]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}


@pytest.mark.parametrize("attended", [True, False])
def test_short_queries_are_filled_up(attended: bool) -> None:
    feeds, visible = prepare(section(QueryExpansion(9, 4, attended, "cut")), "query", FEEDS)
    assert feeds["input_ids"].tolist() == [[1, 5, 2, 9], [1, 2, 9, 9]]
    assert feeds["attention_mask"].tolist() == ([[1, 1, 1, 1]] * 2 if attended else [[1, 1, 1, 0], [1, 1, 0, 0]])
    assert visible.all()
    assert FEEDS["input_ids"].shape == (2, 3)


def test_documents_are_not_filled_up() -> None:
    feeds, visible = prepare(section(QueryExpansion(9, 4, attended=True, longer="cut")), "document", FEEDS)
    assert feeds["input_ids"].tolist() == FEEDS["input_ids"].tolist()
    assert visible.tolist() == [[True, True, True], [True, True, False]]


def test_longer_queries_keep_their_padding() -> None:
    feeds, visible = prepare(section(QueryExpansion(9, 2, attended=True, longer="kept")), "query", FEEDS)
    assert feeds["input_ids"].tolist() == [[1, 5, 2], [1, 2, 0]]
    assert visible.tolist() == [[True, True, True], [True, True, False]]


def test_the_first_token_and_skipped_ones_are_left_out() -> None:
    skipping = section(
        first_token=Decision(False, "file", ""), skipped_token_ids=Decision((5,), "file", ""), skipped_in=("document",)
    )
    assert prepare(skipping, "document", FEEDS)[1].tolist() == [[False, False, True], [False, True, False]]
    assert prepare(skipping, "query", FEEDS)[1].tolist() == [[False, True, True], [False, True, False]]
    assert not treats_alike(skipping)


# Checkpoints that are wrong


def refused(source: Path, *words: str, options: Options | None = None) -> bool:
    output = source.parent / "refused"
    with pytest.raises(OnnxEmbedError) as caught:
        export(source, output, options or Options())
    assert isinstance(caught.value, ModelFilesError | UnsupportedError | UsageError)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    return not output.exists()


WRONG: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no metadata": (
        lambda folder: (write_stanford_colbert(folder) / "artifact.metadata").unlink(),
        ["has no artifact.metadata"],
    ),
    "a length that is none": (
        lambda folder: write_stanford_colbert(folder, doc_maxlen="long"),
        ["doc_maxlen", "'long'"],
    ),
    "no projection": (
        lambda folder: shutil.rmtree(write_colbert_encoder(folder) / "1_Dense"),
        ["1_Dense"],
    ),
    "a projection of another width": (
        lambda folder: change_json(write_colbert_encoder(folder) / "1_Dense/config.json", in_features=31),
        ["1_Dense/config.json", "31 features, but gets 32"],
    ),
    "stanford's projection of another width": (
        lambda folder: change_weights(
            write_stanford_colbert(folder),
            lambda name, tensor: tensor[:, :31].copy() if name == "linear.weight" else tensor,
        ),
        ["linear.weight", "(12, 31)"],
    ),
    "an unknown strategy": (
        lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "strategy": "max"}),
        ["sentence_bert_config.json", "strategy", "'max'"],
    ),
    "an unknown key of the expansion": (
        lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "width": 3}),
        ["query_expansion", "width"],
    ),
    "a token that is none": (
        lambda folder: write_colbert_encoder(folder, expansion={**FIXED, "token": "nonsense"}),
        ["tokenizer.json", "'nonsense'"],
    ),
    "image tokens": (
        lambda folder: change_json(
            write_colbert_encoder(folder) / "2_MultiVectorMask/config.json", keep_only_token_ids=[3]
        ),
        ["2_MultiVectorMask/config.json", "keep_only_token_ids"],
    ),
    "a dense model's layer": (
        lambda folder: change_json(
            write_colbert_encoder(folder) / "1_Dense/config.json", module_input_name="sentence_embedding"
        ),
        ["1_Dense/config.json", "sentence_embedding"],
    ),
    "documents longer than the model": (
        lambda folder: write_colbert_encoder(folder, document_length=65),
        ["document_length", "65", "64"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_checkpoint_is_refused_by_name(tmp_path: Path, what: str) -> None:
    write, words = WRONG[what]
    write(tmp_path / "source")
    assert refused(tmp_path / "source", *words)


def test_a_model_without_the_head_is_named(tmp_path: Path) -> None:
    options = Options(flags=Flags(task="multi_vector"))
    assert refused(write_bert(tmp_path / "source"), "no head for token vectors", options=options)


# Scores


@pytest.mark.torch
def test_maxsim_equals_sentence_transformers() -> None:
    similarity: Any = pytest.importorskip("sentence_transformers.util.similarity")
    rng = np.random.default_rng(0)
    query, document = (rng.normal(size=(n, 12)).astype(np.float32) for n in (5, 9))
    assert maxsim(query, document) == pytest.approx(float(similarity.maxsim([query], [document])), abs=1e-5)
    assert mean_maxsim(query, document) == pytest.approx(float(similarity.mean_maxsim([query], [document])), abs=1e-5)


def test_a_text_without_vectors_scores_zero() -> None:
    none, some = np.empty((0, 3), np.float32), np.ones((2, 3), np.float32)
    assert maxsim(none, some) == maxsim(some, none) == mean_maxsim(none, some) == 0.0
