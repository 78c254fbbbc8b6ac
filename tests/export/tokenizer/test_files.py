"""The tokenizer.json of an artifact alone gives the reference's ids, and every change to it is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from tiny import TEXTS, VOCAB, change_json, write_json, write_sentence_bert

WORDS = " ".join(["the", "of", "and", "to", "in", "is", "it", "that"] * 5)
CASED = "The THE the"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of 20 tokens with a lower-casing BERT tokenizer."""
    return write_sentence_bert(tmp_path / "model")


def write(folder: Path, out: Path, **flags: Any) -> tuple[str, ...]:
    """Write the tokenizer files of a checkpoint into `out`; returns the changes."""
    out.mkdir(exist_ok=True)
    facts = read_facts(folder)
    return write_tokenizer(facts, decide(facts, Flags(**flags)).encoder, out)


def ids(out: Path, text: str) -> list[int]:
    encoded: list[int] = Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids
    return encoded


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return loaded


def words(*tokens: str) -> list[int]:
    return [VOCAB.index(token) for token in ("[CLS]", *tokens, "[SEP]")]


# ---- truncation and padding


def test_texts_are_cut_to_the_decided_length(folder: Path, tmp_path: Path) -> None:
    changes = write(folder, tmp_path / "out")
    assert len(ids(tmp_path / "out", WORDS)) == 20
    assert ids(tmp_path / "out", WORDS)[-1] == VOCAB.index("[SEP]")
    assert changes == ("truncation to 20 tokens (sentence_bert_config.json: max_seq_length)",)


def test_padding_and_another_truncation_are_taken_out(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(folder / "tokenizer.json"))
    changes = write(folder, tmp_path / "out")
    assert ids(tmp_path / "out", "the") == words("the")
    assert len(ids(tmp_path / "out", WORDS)) == 20
    assert changes == (
        "truncation to 20 tokens (sentence_bert_config.json: max_seq_length)",
        "padding removed: the runtime decides how to batch",
    )


def test_an_artifacts_own_tokenizer_needs_no_change(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "out")
    shutil.copy(tmp_path / "out/tokenizer.json", folder)
    assert write(folder, tmp_path / "again") == ()
    assert state(tmp_path / "again") == state(tmp_path / "out")


def test_texts_are_cut_on_the_left_when_the_files_say_so(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "tokenizer_config.json", truncation_side="left")
    write(folder, tmp_path / "out", max_length=4)
    assert ids(tmp_path / "out", "the of and to") == words("and", "to")


def test_left_truncation_in_tokenizer_json_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(9, direction="left")
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelFilesError, match="set its truncation_side"):
        write(folder, tmp_path / "out")
    change_json(folder / "tokenizer_config.json", truncation_side="right")
    write(folder, tmp_path / "out")
    assert state(tmp_path / "out")["truncation"]["direction"] == "Right"


def test_only_the_reported_changes_are_made(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "out")
    before, after = state(folder), state(tmp_path / "out")
    assert {key for key in before if before[key] != after[key]} == {"truncation"}
    assert list(before) == list(after)


# ---- case


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        {"type": "NFC"},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}]},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
        | {"lowercase": False},
    ],
)
def test_lower_casing_is_added_where_it_is_asked_for_and_missing(folder: Path, tmp_path: Path, normalizer: Any) -> None:
    write_json(folder / "tokenizer.json", {**state(folder), "normalizer": normalizer})
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    write(folder, tmp_path / "before")
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    changes = write(folder, tmp_path / "after")
    assert "lower-casing added (sentence_bert_config.json: do_lower_case)" in changes
    assert ids(tmp_path / "before", CASED) == words("[UNK]", "[UNK]", "the")
    assert ids(tmp_path / "after", CASED) == words("the", "the", "the")


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Lowercase"},
        {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}]},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
        | {"lowercase": True},
    ],
)
def test_lower_casing_that_is_there_is_left_alone(folder: Path, tmp_path: Path, normalizer: Any) -> None:
    write_json(folder / "tokenizer.json", {**state(folder), "normalizer": normalizer})
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert not [change for change in write(folder, tmp_path / "out") if "lower" in change]
    assert state(tmp_path / "out")["normalizer"] == normalizer


def test_case_is_left_to_the_tokenizer_by_default(folder: Path, tmp_path: Path) -> None:
    write_json(folder / "tokenizer.json", {**state(folder), "normalizer": None})
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    write(folder, tmp_path / "out")
    assert state(tmp_path / "out")["normalizer"] is None


# ---- what the tokenizer's class decides

BERT_CONFIGS: list[dict[str, Any]] = [
    {"do_lower_case": False},
    {"do_lower_case": True},
    {"do_lower_case": True, "strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
    {"tokenizer_class": "DistilBertTokenizer"},
    {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
    {},
]


@pytest.mark.torch
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("config", BERT_CONFIGS, ids=str)
def test_berts_options_are_those_of_the_reference(
    folder: Path, tmp_path: Path, config: dict[str, Any], stored: bool
) -> None:
    """BERT-like classes set case, accents and Chinese from tokenizer_config.json, overriding tokenizer.json."""
    transformers = pytest.importorskip("transformers")
    normalizer = {**state(folder)["normalizer"], "lowercase": stored, "strip_accents": stored}
    write_json(folder / "tokenizer.json", {**state(folder), "normalizer": normalizer})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    write(folder, tmp_path / "out")
    for text in (CASED, "thé Thé", "of中of", *TEXTS):
        assert ids(tmp_path / "out", text) == reference(text, truncation=True, max_length=20).input_ids


def test_an_option_set_by_the_class_is_reported(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "tokenizer_config.json", do_lower_case=False)
    assert "BertNormalizer: lowercase set to false (tokenizer_config.json: do_lower_case)" in write(
        folder, tmp_path / "out"
    )
    write_json(
        folder / "tokenizer.json",
        {**state(folder), "normalizer": {**state(folder)["normalizer"], "lowercase": False}},
    )
    change_json(folder / "tokenizer_config.json", do_lower_case=None, tokenizer_class=None)
    assert (
        "BertNormalizer: lowercase set to true (tokenizer_config.json: no do_lower_case, the default of BertTokenizer)"
        in write(folder, tmp_path / "out")
    )


@pytest.mark.torch
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"add_prefix_space": False}], ids=str)
def test_robertas_leading_space_is_that_of_the_reference(tmp_path: Path, config: dict[str, Any], stored: bool) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import models, pre_tokenizers, processors

    vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "b", "Ġ", "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("Ġ", "a")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=stored, use_regex=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    folder = write_sentence_bert(
        tmp_path / "model", model_type="roberta", pad_token_id=1, max_position_embeddings=30, vocab_size=len(vocab) + 1
    )  # the class has a <mask> besides
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", **config})
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    write(folder, tmp_path / "out")
    for text in ("a b a", " a", "b"):
        assert ids(tmp_path / "out", text) == reference(text).input_ids


# ---- the files beside it


def test_the_configuration_says_the_decided_length(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "out", max_length=11)
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert written == {**json.loads((folder / "tokenizer_config.json").read_text()), "model_max_length": 11}


def test_special_tokens_map_is_derived_where_it_is_absent(folder: Path, tmp_path: Path) -> None:
    mask = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}
    change_json(folder / "tokenizer_config.json", mask_token=mask)
    write(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out/special_tokens_map.json").read_text()) == {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }


def test_special_tokens_map_is_kept_where_it_is_there(folder: Path, tmp_path: Path) -> None:
    special_tokens = {"cls_token": {"content": "[CLS]", "lstrip": False}}
    write_json(folder / "special_tokens_map.json", special_tokens)
    write(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out/special_tokens_map.json").read_text()) == special_tokens


# ---- refused


def test_a_checkpoint_without_a_vocabulary_is_an_error_that_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFilesError, match=r"has no tokenizer\.json, and no vocab\.txt for its BertTokenizer"):
        write(folder, tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"type": "WordPiece"}}'])
def test_a_broken_tokenizer_is_named(folder: Path, tmp_path: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFilesError) as caught:
        write(folder, tmp_path / "out")
    assert str(folder / "tokenizer.json") in str(caught.value)


def test_special_tokens_that_leave_no_room_blame_the_flag_or_the_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"adds 2 special tokens, which leaves no room in 2 \(--max-length\)"):
        write(folder, tmp_path / "out", max_length=2)
    change_json(folder / "sentence_bert_config.json", max_seq_length=1)
    with pytest.raises(ModelFilesError, match="leaves no room in 1"):
        write(folder, tmp_path / "out")
    write(folder, tmp_path / "out", max_length=3)
    assert ids(tmp_path / "out", "the of") == words("the")


# ---- real tokenizers


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bert-base-uncased", "gte-large-en-v1.5", "xlm-roberta"])
def test_a_real_tokenizer_gives_the_ids_of_transformers(shared_data: Path, tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_sentence_bert(tmp_path / "model", max_length=48, vocab_size=300000)
    source = shared_data / "configs" / name
    shutil.copy(source / "tokenizer.json", folder)
    if (source / "tokenizer_config.json").is_file():
        shutil.copy(source / "tokenizer_config.json", folder)
    else:
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    write(folder, tmp_path / "out")

    files = sorted((shared_data / "text/tatoeba").glob("tatoeba.*-*"))
    lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
    sentences = [line for words in lines for line in words[:13]]
    long = [" ".join(words[13:30]) for words in lines]
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    encoded = tokenizer.encode_batch([*sentences, *long, "", "  ", CASED])
    expected = reference([*sentences, *long, "", "  ", CASED], truncation=True, max_length=48).input_ids
    assert [encoding.ids for encoding in encoded] == expected
    assert len(sentences) >= 200
    assert sum(len(encoding.ids) == 48 for encoding in encoded) > 10
