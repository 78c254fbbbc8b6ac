"""A tokenizer.json is read as transformers reads it, whatever class the files name; the reference is AutoTokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hard_texts import HARD
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts import tokenizer_class
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from tiny import VOCAB, change_json, write_json, write_sentence_bert

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
END = "<|endoftext|>"  # every class has it
CHARACTERS = [chr(code) for code in range(33, 127)]


def byte_level() -> Tokenizer:
    """Merges that reach across what Qwen2's and GPT-2's regular expressions split."""
    merges = [("1", "2"), ("Ġ", "a"), ("-", "a"), ("'", "S"), ("Ċ", "a")]
    vocab = {token: i for i, token in enumerate([*LETTERS, *(a + b for a, b in merges), END])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer.add_special_tokens([END])
    return tokenizer


def wordpiece() -> Tokenizer:
    pieces = [*VOCAB, *(c for c in CHARACTERS if c not in VOCAB), *(f"##{c}" for c in CHARACTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def unigram() -> Tokenizer:
    scores = [("[UNK]", 0.0), ("▁", -3.0), ("▁the", -1.0), *((c, -5.0) for c in CHARACTERS)]
    tokenizer = Tokenizer(models.Unigram(scores, 0, False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    return tokenizer


def checkpoint(folder: Path, tokenizer: Tokenizer, model_type: str, named: str | None) -> Path:
    write_sentence_bert(folder)
    change_json(folder / "config.json", model_type=model_type, vocab_size=1000)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {} if named is None else {"tokenizer_class": named})
    return folder


def write(folder: Path, out: Path) -> tuple[tuple[str, ...], Tokenizer]:
    out.mkdir()
    facts = read_facts(folder)
    flags = Flags(attention="causal" if MODEL_TYPES[facts.model_type].decoder else None)
    changes = write_tokenizer(facts, decide(facts, flags).encoder, out)
    return changes, Tokenizer.from_file(str(out / "tokenizer.json"))


SAME_KIND: list[tuple[Any, str, str | None]] = [
    (byte_level, "qwen2", "PreTrainedTokenizerFast"),
    (byte_level, "qwen2", "GPT2Tokenizer"),
    (byte_level, "qwen2", None),
    (byte_level, "qwen3", None),
    (byte_level, "qwen3", "PreTrainedTokenizerFast"),
    (byte_level, "qwen3", "GPT2TokenizerFast"),
    (byte_level, "llama", "LlamaTokenizer"),
    (byte_level, "llama", "Qwen2Tokenizer"),
    (byte_level, "llama", None),
    (byte_level, "mistral", "LlamaTokenizer"),
    (byte_level, "mistral", "Qwen2Tokenizer"),
]


@pytest.mark.torch
@pytest.mark.parametrize(("make", "model_type", "named"), SAME_KIND)
def test_the_class_that_transformers_takes_decides(
    tmp_path: Path, make: Any, model_type: str, named: str | None
) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint(tmp_path / "model", make(), model_type, named)
    _, ours = write(folder, tmp_path / "out")
    reference: Any = AutoTokenizer.from_pretrained(str(folder))
    for text in (*HARD[:60], "12 123", "it'S -a", "a\na"):
        assert ours.encode(text).ids == reference(text, truncation=True, max_length=20).input_ids, text


def test_what_the_class_does_otherwise_is_reported(tmp_path: Path) -> None:
    changes, _ = write(checkpoint(tmp_path / "model", byte_level(), "qwen2", None), tmp_path / "out")
    assert changes[0].startswith("texts prepared and cut as Qwen2Tokenizer does")


OTHER_KINDS: list[tuple[Any, str, str | None, str]] = [
    (wordpiece, "qwen2", "BertTokenizer", "a WordPiece, .*Qwen2Tokenizer, which needs a BPE; a qwen2 model needs"),
    (wordpiece, "qwen2", "PreTrainedTokenizerFast", "a WordPiece, .*Qwen2Tokenizer"),
    (wordpiece, "bert", "RobertaTokenizer", "a WordPiece, .*RobertaTokenizer.*PreTrainedTokenizerFast"),
    (unigram, "bert", None, "a Unigram, .*BertTokenizer, which needs a WordPiece"),
    (byte_level, "bert", None, "a BPE, .*BertTokenizer, which needs a WordPiece"),
    (unigram, "qwen3", "Qwen2Tokenizer", "a Unigram, .*Qwen2Tokenizer"),
]


@pytest.mark.parametrize(("make", "model_type", "named", "words"), OTHER_KINDS)
def test_a_vocabulary_of_another_kind_is_refused_by_name(
    tmp_path: Path, make: Any, model_type: str, named: str | None, words: str
) -> None:
    with pytest.raises(ModelFilesError, match=words):
        write(checkpoint(tmp_path / "model", make(), model_type, named), tmp_path / "out")


def test_a_class_that_is_not_built_here_is_refused_by_name(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", unigram(), "bert", "T5Tokenizer")
    with pytest.raises(UnsupportedError, match=r"T5Tokenizer.*PreTrainedTokenizerFast"):
        write(folder, tmp_path / "out")


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "TokenizersBackend", "OfNobodyTokenizer"])
def test_the_file_is_followed_where_no_class_rebuilds_it(tmp_path: Path, named: str) -> None:
    folder = checkpoint(tmp_path / "model", unigram(), "bert", named)
    changes, ours = write(folder, tmp_path / "out")
    assert not [change for change in changes if "prepared" in change]
    assert ours.encode("the a").ids == unigram().encode("the a").ids


@pytest.mark.torch
def test_the_tables_are_those_of_transformers() -> None:
    auto: Any = pytest.importorskip("transformers.models.auto.tokenization_auto")
    for model_type in MODEL_TYPES:
        name = auto.TOKENIZER_MAPPING_NAMES.get(model_type)
        expected = tokenizer_class.AS_STORED if name == "MistralCommonBackend" else name
        assert tokenizer_class.REGISTERED.get(model_type) == expected, model_type
        overruling = model_type in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
        assert (model_type in tokenizer_class.OVERRULING) == overruling, model_type
    for alias, name in tokenizer_class.ALIASES.items():
        assert auto.tokenizer_class_from_name(alias).__name__ == name
    for name in {*auto.TOKENIZER_MAPPING_NAMES.values()} - {None, tokenizer_class.AS_STORED, "MistralCommonBackend"}:
        own = "__init__" in auto.tokenizer_class_from_name(name).__dict__
        slow = name.removesuffix("Fast")
        assert (tokenizer_class.ALIASES.get(slow, slow) in tokenizer_class.REBUILDING) == own, name
