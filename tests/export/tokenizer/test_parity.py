"""Every real tokenizer at hand, as an artifact has it, gives the reference's ids: all languages, hard and random texts.

The reference is transformers' AutoTokenizer on the same files, or what their class adds to it in code (said where).
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hard_texts import HARD
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Decision, Tokenization
from onnxembed.recipes.book import read_recipe
from onnxembed.tokenizer.texts import TextTokenizer
from sentencepiece_files import FIRST, NORMAL, model
from tiny import write_json

CONFIGS = Path(__file__).parents[4] / "shared/data/configs"
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
OLDER = ("vocab.txt", "vocab.json")
COPIED = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# What the folders without a config.json, or one that is not the model's, are.
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    "modernbert": {"model_type": "modernbert", "vocab_size": 50368},
    "xlm-roberta": {"model_type": "xlm-roberta", "vocab_size": 250002, "pad_token_id": 1},
}
SIZES = {"hidden_size": 8, "num_attention_heads": 1, "max_position_embeddings": 9000}
LIMITS = (5, 33)
END_OF_TEXT = 151643
Ids = list[list[int]]


def names(*files: str) -> list[str]:
    """The folders with one of `files`; without the data one name remains, whose test says what it needs."""
    folders = [folder.name for folder in sorted(CONFIGS.glob("*")) if any((folder / file).is_file() for file in files)]
    return folders or ["bert-base-uncased"]


def checkpoint(source: Path, folder: Path, *, without: Sequence[str] = ()) -> Path:
    """A model's tokenizer files beside the config that they were published with, of a smaller model."""
    folder.mkdir()
    for name in COPIED:
        if (source / name).is_file() and name not in without:
            shutil.copy(source / name, folder)
    config = MODEL_CONFIGS.get(source.name)
    if config is None:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    published = {
        key: config[key] for key in ("model_type", "vocab_size", "pad_token_id", "tokenizer_class") if key in config
    }
    write_json(folder / "config.json", {**SIZES, "hidden_dim": 8, **published})
    return folder


def write(folder: Path, out: Path, limit: int = 8000, recipe: str | None = None) -> tuple[str, ...]:
    out.mkdir()
    facts = read_facts(folder)
    flags = Flags(pooling=("mean",), normalize=True, max_length=limit)
    return write_tokenizer(facts, decide(facts, flags, read_recipe(recipe) if recipe else None).encoder, out)


def ours(out: Path, limit: int) -> Callable[[Sequence[str]], Ids]:
    """The runtime's ids for texts of at most `limit` tokens."""
    side = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["truncation"]["direction"].lower()
    tokenization = Tokenization(
        Decision(limit, "flag", ""), Decision(side, "flag", ""), Decision(0, "flag", ""), changes=()
    )
    tokenizer = TextTokenizer(out, tokenization, limit)
    return lambda texts: [tokens.ids.tolist() for tokens in tokenizer.tokenize(texts)]


def reference(folder: Path) -> Callable[[Sequence[str], int], Ids]:
    """AutoTokenizer's ids of at most `limit` tokens, with what a model's own code does to them."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    facts = read_facts(folder)
    static = MODEL_TYPES[facts.model_type].static  # averages the tokens of the text alone
    # transformers 5 leaves add_eos_token to tokenizer.json, which does not know of it; the model's class did it.
    end = [END_OF_TEXT] if facts.tokenizer_config.get("add_eos_token") is True else []

    def encode(texts: Sequence[str], limit: int) -> Ids:
        options = {"add_special_tokens": not static, "truncation": True, "max_length": limit - len(end)}
        return [[*ids, *end] for ids in tokenizer(list(texts), **options).input_ids]

    return encode


@cache
def sentences(share: int) -> tuple[str, ...]:
    """One in `share` sentences of each of the 16 languages, the hard texts, and both in longer ones."""
    files = sorted((CONFIGS.parent / "text/tatoeba").glob("tatoeba.*-*"))
    lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
    assert len(lines) == 16
    short = [line for words in lines for line in words[::share]]
    long = [" ".join(words[:60]) for words in lines]
    mixed = [f"{hard} {line}\n{hard}" for hard, line in zip(HARD, short, strict=False)]
    return (*short, *HARD, *long, *mixed)


@dataclass(frozen=True)
class Pair:
    """A tokenizer as written to an artifact, the changes made to it, and the reference's ids for the same files."""

    out: Path
    changes: tuple[str, ...]
    expected: Callable[[Sequence[str], int], Ids]

    def compare(self, share: int) -> None:
        """Compare all texts, whole and cut to each of the limits."""
        texts = sentences(share)
        for limit, part in ((8000, texts), *((limit, texts[::3]) for limit in LIMITS)):
            wanted, given = self.expected(part, limit), ours(self.out, limit)(part)
            different = [text for text, a, b in zip(part, wanted, given, strict=True) if a != b]
            assert not different, (limit, len(different), different[:3])
            assert limit > 100 or sum(len(ids) == limit for ids in given) > 10


@pytest.fixture(scope="module")
def pairs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """Builds the pair of a real model, once per model."""

    @cache
    def build(name: str, *without: str) -> Pair:
        place = tmp_path_factory.mktemp(name)
        folder = checkpoint(shared_data / "configs" / name, place / "model", without=without)
        return Pair(place / "out", write(folder, place / "out"), reference(folder))

    return build


@pytest.mark.torch
@pytest.mark.parametrize("name", names(*VOCABULARIES))
def test_a_real_tokenizer_gives_the_references_ids(pairs: Callable[..., Pair], name: str) -> None:
    pairs(name).compare(share=2)


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name in names(*OLDER) if name != "qwen2"])
def test_a_real_vocabulary_is_converted_to_the_published_tokenizer(
    shared_data: Path, pairs: Callable[..., Pair], name: str
) -> None:
    converted = pairs(name, "tokenizer.json")
    converted.compare(share=10)
    assert converted.changes[0].startswith("built from vocab.txt as BertTokenizer")
    published = Tokenizer.from_file(str(shared_data / "configs" / name / "tokenizer.json"))
    published.no_truncation()
    published.no_padding()
    texts = list(sentences(2))
    assert ours(converted.out, 8000)(texts) == [encoding.ids for encoding in published.encode_batch(texts)]


def xlm_roberta_model(published: Path, folder: Path) -> dict[str, Any]:
    """Rebuild XLM-R's sentencepiece model from its tokenizer.json; returns the parsed tokenizer.json."""
    state: dict[str, Any] = json.loads(published.read_text(encoding="utf-8"))
    steps = state["normalizer"].get("normalizers", [state["normalizer"]])
    (charsmap,) = (base64.b64decode(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled")
    pieces = [*FIRST, *((text, score, NORMAL) for text, score in state["model"]["vocab"][4:-1])]
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(model(pieces, charsmap=charsmap))
    write_json(folder / "config.json", {**SIZES, **MODEL_CONFIGS["xlm-roberta"]})
    return state


def test_xlm_robertas_sentencepiece_model_gives_the_ids_of_its_published_tokenizer(
    shared_data: Path, tmp_path: Path
) -> None:
    """250,002 tokens, with the tokenizers library on the published file as the reference: no transformers."""
    published = shared_data / "configs/xlm-roberta/tokenizer.json"
    state = xlm_roberta_model(published, tmp_path / "model")
    changes = write(tmp_path / "model", tmp_path / "out")
    assert changes[0] == "built from sentencepiece.bpe.model as XLMRobertaTokenizer (the class of xlm-roberta)"
    tokenizer = Tokenizer.from_str(json.dumps({**state, "truncation": None, "padding": None}))
    for limit in (8000, *LIMITS):
        if limit < 8000:
            tokenizer.enable_truncation(limit)
        texts = list(sentences(2))
        assert ours(tmp_path / "out", limit)(texts) == [encoding.ids for encoding in tokenizer.encode_batch(texts)]


@pytest.mark.torch
def test_xlm_robertas_sentencepiece_model_gives_the_references_ids(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="transformers reads sentencepiece models with its package")
    xlm_roberta_model(shared_data / "configs/xlm-roberta/tokenizer.json", tmp_path / "model")
    changes = write(tmp_path / "model", tmp_path / "out")
    Pair(tmp_path / "out", changes, reference(tmp_path / "model")).compare(share=10)


@pytest.mark.parametrize("recipe", ["gte-Qwen2-1.5B-instruct", "Qwen3-Embedding-0.6B"])
def test_a_converted_tokenizer_ends_texts_as_the_recipe_says(shared_data: Path, tmp_path: Path, recipe: str) -> None:
    """Published: "Hello world" -> 9707, 1879, 151643. The end survives truncation on either side."""
    folder = checkpoint(shared_data / "configs/qwen2", tmp_path / "model")
    write(folder, tmp_path / "out", recipe=recipe)
    assert ours(tmp_path / "out", 8000)(["Hello world"]) == [[9707, 1879, END_OF_TEXT]]
    long = "Hello" + " world" * 20
    assert ours(tmp_path / "out", 4)([long]) == [[9707, 1879, 1879, END_OF_TEXT]]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**config, "truncation_side": "left"})
    changes = write(folder, tmp_path / "left", recipe=recipe)
    assert ours(tmp_path / "left", 4)([long]) == [[1879, 1879, 1879, END_OF_TEXT]]
    assert changes[0].startswith("built from vocab.json and merges.txt as Qwen2Tokenizer")
    assert any(change.startswith("<|endoftext|> added to the end of every text") for change in changes)


# ---- random texts

SPELT = (
    "<s>",
    "</s>",
    "<mask>",
    "[MASK]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "<|endoftext|>",
    "▁",
    "##",
    "\u200d",
    "\ufe0f",
    "\u0301",
)
LETTERS = st.characters(exclude_categories=["Cs"])
PARTS = st.one_of(st.text(LETTERS, max_size=12), st.sampled_from([*SPELT, *HARD]), st.sampled_from(" \n\t"))
TEXTS = st.lists(PARTS, max_size=6).map("".join)


@pytest.fixture(scope="module")
def kinds(pairs: Callable[..., Pair]) -> dict[str, tuple[Callable[[Sequence[str]], Ids], Pair]]:
    """One real tokenizer of each kind, ours cut to 64 tokens."""
    chosen = (pairs("bert-base-uncased", "tokenizer.json"), pairs("modernbert"), pairs("qwen2"), pairs("xlm-roberta"))
    return {str(pair.out): (ours(pair.out, 64), pair) for pair in chosen}


@pytest.mark.torch
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_random_texts_get_the_references_ids(kinds: Any, texts: list[str]) -> None:
    for name, (given_ids, pair) in kinds.items():
        assert given_ids(texts) == pair.expected(texts, 64), name
