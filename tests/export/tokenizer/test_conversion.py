"""Checkpoints without tokenizer.json get the tokenizer that transformers' class builds from the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers

from hard_texts import HARD
from onnxembed import OnnxEmbedder
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.pipeline import export
from onnxembed.export.tokenizer.conversion import Converted, convert
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from onnxembed.hub.checkpoint_files import VOCABULARIES
from onnxembed.recipes.book import read_recipe
from onnxembed.tokenizer.vocabularies import CLASSES
from sentencepiece_files import BPE, BYTES, CONTROL, FIRST, NORMAL, UNIGRAM, UNKNOWN, USER_DEFINED, model
from tiny import TEXTS, VOCAB, change_json, write_json, write_sentence_bert

LINES = [
    *HARD,
    *(f"the quick brown fox number {i} jumps over {i * 7} lazy dogs, it's their garden" for i in range(60)),
]
PRINTABLE = [line for line in LINES if "\x00" not in line]  # sentencepiece has no piece for a zero byte
LEARNT = (
    "the",
    "quick",
    "brown",
    "fox",
    "number",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "garden",
    "it",
    "th",
    "a",
    "e",
    "s",
)
CONFIG = {
    "hidden_size": 8,
    "dim": 8,
    "n_heads": 1,
    "num_attention_heads": 1,
    "max_position_embeddings": 80,
    "vocab_size": 5000,
    "pad_token_id": 1,
}
ENDS = {"add_bos_token": True, "add_eos_token": True}


# ---- tiny vocabularies, as older checkpoints hold them


def wordpiece(folder: Path, first: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> None:
    trained = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    trained.train_from_iterator(
        iter(LINES), vocab_size=500, min_frequency=1, special_tokens=list(first), show_progress=False
    )
    trained.save_model(str(folder))


def mpnet(folder: Path) -> None:
    wordpiece(folder, ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"))


def byte_level(folder: Path, first: tuple[str, ...] = ()) -> None:
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        iter(LINES), vocab_size=600, min_frequency=1, special_tokens=list(first), show_progress=False
    )
    trained.save_model(str(folder))


def roberta(folder: Path) -> None:
    byte_level(folder, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))


def unigram() -> list[tuple[str, float, int]]:
    """Pieces and scores learned by the tokenizers library."""
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    learner.train_from_iterator(PRINTABLE, trainer)
    learnt: list[tuple[str, float]] = json.loads(learner.to_str())["model"]["vocab"]
    return [(text, score, NORMAL) for text, score in learnt[1:]]


def xlm_roberta(folder: Path) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(model([*FIRST, *unigram(), ("▁@", 0.0, USER_DEFINED)]))


def albert(folder: Path) -> None:
    first = [("<pad>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    specials = [(text, 0.0, CONTROL) for text in ("[CLS]", "[SEP]", "[MASK]")]
    pieces = [*first, *specials, ("9,", -3.0, NORMAL), ("(", 0.0, USER_DEFINED)]
    more = [piece for piece in unigram() if piece[0] not in {text for text, _, _ in pieces}]
    (folder / "spiece.model").write_bytes(model([*pieces, *more], unk_id=1))


def deberta_v2(folder: Path) -> None:
    first = [("[PAD]", 0.0, CONTROL), ("[CLS]", 0.0, CONTROL), ("[SEP]", 0.0, CONTROL), ("[UNK]", 0.0, UNKNOWN)]
    (folder / "spm.model").write_bytes(model([*first, *unigram()], unk_id=3))


def byte_fallback(first: list[tuple[str, float, int]], **settings: Any) -> bytes:
    """Merges of sentencepiece, best first: every way to build the learned words, letter by letter."""
    letters = sorted(set("".join(LEARNT)) | set("▁ ,.'012345"))
    grown = dict.fromkeys("▁"[: len(word) % 2] + word[:end] for word in LEARNT for end in range(1, len(word) + 1))
    words = [text for text in ("▁▁", *grown) if len(text) > 1]
    texts = [*words, *(letter for letter in letters if letter not in words)]
    pieces = [(text, -float(rank), NORMAL) for rank, text in enumerate(texts)]
    return model([*first, *BYTES, *pieces], BPE, byte_fallback=True, **settings)


def llama(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(byte_fallback(FIRST))


def gemma(folder: Path) -> None:
    named = [("<pad>", 0.0, CONTROL), ("<eos>", 0.0, CONTROL), ("<bos>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    first = [*named, ("<mask>", 0.0, USER_DEFINED), ("\n\n", 0.0, USER_DEFINED)]
    (folder / "tokenizer.model").write_bytes(byte_fallback(first, unk_id=3, add_dummy_prefix=False))


def token(content: str, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": content, **plain, **flags}


def typed(content: str, **flags: bool) -> dict[str, Any]:
    """A token written out as an object where transformers also accepts a plain string."""
    return {"__type": "AddedToken", **token(content, **flags)}


@dataclass(frozen=True)
class Case:
    """A checkpoint: its tokenizer's class, model_type, vocabulary, and what else its files say."""

    tokenizer_class: str
    model_type: str
    vocabulary: Callable[[Path], None]
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        self.vocabulary(folder)
        write_json(folder / "config.json", {"model_type": self.model_type, **CONFIG})
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": self.tokenizer_class, **self.config})
        for name, content in self.files.items():
            write_json(folder / name, content)
        return folder


SPECIALS_MAP = {"cls_token": token("[SEP]", lstrip=True), "mask_token": "[MASK]", "additional_special_tokens": ["fox"]}
QWEN = {"bos_token": None, "unk_token": None, "pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
DECODER_CHAT = {"600": token("<|endoftext|>", special=True), "601": token("<|im_start|>", special=True)}
CASES: dict[str, Case] = {
    "bert": Case("BertTokenizer", "bert", wordpiece),
    "bert, cased": Case("BertTokenizerFast", "bert", wordpiece, {"do_lower_case": False}),
    "bert, accents": Case("BertTokenizer", "bert", wordpiece, {"strip_accents": False}),
    "bert, accents only": Case("BertTokenizer", "bert", wordpiece, {"do_lower_case": False, "strip_accents": True}),
    "bert, Chinese": Case("BertTokenizer", "bert", wordpiece, {"tokenize_chinese_chars": False}),
    "bert, other tokens": Case(
        "BertTokenizer", "bert", wordpiece, {"cls_token": "[MASK]", "sep_token": "fox", "mask_token": typed("the")}
    ),
    "bert, tokens map": Case("BertTokenizer", "bert", wordpiece, {}, {"special_tokens_map.json": SPECIALS_MAP}),
    "bert, added tokens": Case(
        "BertTokenizer", "bert", wordpiece, {"cls_token": "[DOC]"}, {"added_tokens.json": {"[DOC]": 500, "Foo": 501}}
    ),
    "bert, decoder of added tokens": Case(
        "BertTokenizer",
        "bert",
        wordpiece,
        {"added_tokens_decoder": {"4": token("[MASK]", lstrip=True), "500": token("Brown Fox", normalized=True)}},
        {"special_tokens_map.json": {"cls_token": "[MASK]"}, "added_tokens.json": {"lazy": 900}},
    ),
    "distilbert": Case("DistilBertTokenizer", "distilbert", wordpiece),
    "electra": Case("ElectraTokenizer", "electra", wordpiece),
    "mpnet": Case("MPNetTokenizer", "mpnet", mpnet),
    "mpnet, cased": Case("MPNetTokenizer", "mpnet", mpnet, {"do_lower_case": False, "mask_token": typed("<mask>")}),
    "mpnet, mask": Case("MPNetTokenizer", "mpnet", mpnet, {"mask_token": "<mask>", "cls_token": "</s>"}),
    "roberta": Case("RobertaTokenizer", "roberta", roberta),
    "roberta, space": Case("RobertaTokenizer", "roberta", roberta, {"add_prefix_space": True}),
    "gpt2": Case("GPT2Tokenizer", "qwen3", byte_level, {"add_prefix_space": True}),
    "gpt2, ends": Case("GPT2Tokenizer", "qwen3", byte_level, {**ENDS, "eos_token": "<|endoftext|>"}),
    "qwen2": Case("Qwen2Tokenizer", "qwen2", byte_level, QWEN),
    "qwen2, end": Case("Qwen2Tokenizer", "qwen2", byte_level, {**QWEN, "add_eos_token": True}),
    "qwen2, chat": Case(
        "Qwen2Tokenizer",
        "qwen2",
        byte_level,
        {**QWEN, "additional_special_tokens": ["<|im_start|>"], "added_tokens_decoder": DECODER_CHAT},
    ),
    "xlm-roberta": Case("XLMRobertaTokenizer", "xlm-roberta", xlm_roberta),
    "xlm-roberta, mask": Case("XLMRobertaTokenizer", "gte", xlm_roberta, {"mask_token": typed("<mask>", lstrip=True)}),
    "camembert": Case("CamembertTokenizer", "camembert", xlm_roberta),
    "camembert, mask": Case("CamembertTokenizer", "camembert", xlm_roberta, {"mask_token": "<mask>"}),
    "albert": Case("AlbertTokenizer", "albert", albert),
    "albert, accents": Case("AlbertTokenizer", "albert", albert, {"keep_accents": True, "do_lower_case": False}),
    "deberta-v2": Case("DebertaV2Tokenizer", "deberta-v2", deberta_v2),
    "deberta-v2, punctuation": Case(
        "DebertaV2Tokenizer", "deberta-v2", deberta_v2, {"split_by_punct": True, "do_lower_case": True}
    ),
    "llama": Case("LlamaTokenizer", "llama", llama, {**ENDS, "eos_token": "</s>"}),
    "llama, legacy": Case("LlamaTokenizer", "llama", llama, {"legacy": True, "add_bos_token": False}),
    "llama, no space": Case("LlamaTokenizer", "llama", llama, {"add_prefix_space": False, "add_bos_token": True}),
    "gemma": Case("GemmaTokenizer", "gemma3_text", gemma, {**ENDS, "eos_token": "<eos>"}),
}


def build(folder: Path) -> Converted:
    return convert(read_facts(folder))


def encoder(converted: Converted) -> Callable[[str], list[int]]:
    tokenizer = Tokenizer.from_str(json.dumps(converted.state))

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    return encode


def reference(folder: Path) -> Any:
    """transformers' own conversion; for sentencepiece models it needs that library's package."""
    transformers = pytest.importorskip("transformers")
    if list(folder.glob("*.model")):
        pytest.importorskip("sentencepiece", reason="transformers reads sentencepiece models with its package")
    return transformers.AutoTokenizer.from_pretrained(folder)


# ---- against transformers


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_the_whole_tokenizer_is_that_of_the_reference(tmp_path: Path, name: str) -> None:
    folder = CASES[name].write(tmp_path / "model")
    expected, state = reference(folder), build(folder).state
    for part, value in json.loads(expected.backend_tokenizer.to_str()).items():
        assert state[part] == value, part
    encode = encoder(build(folder))
    assert [encode(text) for text in HARD] == expected(list(HARD)).input_ids


@pytest.mark.torch
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
def test_special_tokens_survive_truncation_as_in_the_reference(tmp_path: Path, name: str, side: str) -> None:
    folder = CASES[name].write(tmp_path / "model")
    change_json(folder / "tokenizer_config.json", truncation_side=side)
    facts, expected = read_facts(folder), reference(folder)
    texts = [text for text in HARD if text.strip()]
    for limit in (3, 4, 7, 33):
        out = tmp_path / str(limit)
        out.mkdir()
        flags = Flags(max_length=limit, pooling=("mean",), normalize=True)
        changes = write_tokenizer(facts, decide(facts, flags).encoder, out)
        written = Tokenizer.from_file(str(out / "tokenizer.json"))
        encoded = [encoding.ids for encoding in written.encode_batch(texts)]
        assert encoded == expected(texts, truncation=True, max_length=limit).input_ids
        assert any(len(ids) == limit for ids in encoded)
        assert changes[0].startswith("built from ")
        assert json.loads((out / "special_tokens_map.json").read_text())


@pytest.mark.torch
def test_mistral_is_read_as_the_class_it_names_with_the_space_that_its_file_asks_for(tmp_path: Path) -> None:
    """Below transformers 5.24, AutoTokenizer read a mistral folder without its class, and left out the space."""
    spm = pytest.importorskip("sentencepiece", reason="the sentencepiece package says what the ids are")
    folder = Case("LlamaTokenizer", "mistral", llama, {"add_bos_token": False}).write(tmp_path / "model")
    library = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    encode = encoder(build(folder))
    for text in ("the quick brown fox", "the  lazy dogs, it's é 12", "a\n\nb"):
        assert encode(text) == library.encode(text)
    release = tuple(map(int, version("transformers").split(".")[:2]))
    agrees = reference(folder)("the fox").input_ids == library.encode("the fox")
    assert agrees == (release >= (5, 24))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["xlm-roberta", "llama", "gemma"])
def test_a_text_without_special_tokens_gets_the_ids_of_the_sentencepiece_library(tmp_path: Path, name: str) -> None:
    spm = pytest.importorskip("sentencepiece", reason="the sentencepiece package says what the ids are")
    folder = CASES[name].write(tmp_path / "model")
    (file,) = folder.glob("*.model")
    library = spm.SentencePieceProcessor(model_file=str(file))
    tokenizer = Tokenizer.from_str(json.dumps(build(folder).state))
    for text in LINES[-60:]:
        ids = library.encode(text)
        if name == "xlm-roberta":  # fairseq's ids: one higher, the unknown token third
            ids = [index + 1 if index else 3 for index in ids]
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids


# ---- against the tokenizer that learned the vocabulary, and by hand


def test_wordpiece_gives_the_ids_of_the_tokenizer_it_was_saved_from(tmp_path: Path) -> None:
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(iter(LINES), vocab_size=500, min_frequency=1, show_progress=False)
    folder = CASES["bert"].write(tmp_path / "model")
    trained.save_model(str(folder))
    encode = encoder(build(folder))
    cls, sep = trained.token_to_id("[CLS]"), trained.token_to_id("[SEP]")
    for text in LINES:
        assert encode(text) == [cls, *trained.encode(text, add_special_tokens=False).ids, sep]


def test_fairseqs_ids_by_hand(tmp_path: Path) -> None:
    """<s> 0, <pad> 1, </s> 2, <unk> 3; the file's fourth piece is 4; <mask> comes last."""
    pieces = [*FIRST, ("▁ab", -1.0, NORMAL), ("▁", -2.0, NORMAL), ("a", -3.0, NORMAL), ("b", -4.0, NORMAL)]

    def write(folder: Path) -> None:
        (folder / "sentencepiece.bpe.model").write_bytes(model(pieces))

    encode = encoder(build(Case("XLMRobertaTokenizer", "xlm-roberta", write).write(tmp_path / "xlm-roberta")))
    assert encode("ab ba  x <mask>") == [0, 4, 5, 7, 6, 5, 3, 8, 2]
    encode = encoder(build(Case("CamembertTokenizer", "camembert", write).write(tmp_path / "camembert")))
    assert encode("ab ba <mask>") == [5, 7, 8, 10, 9, 11, 6]


def test_bytes_stand_for_unknown_characters_by_hand(tmp_path: Path) -> None:
    pieces = [*FIRST, *BYTES, ("▁a", -0.0, NORMAL), ("ab", -1.0, NORMAL), *((text, -9.0, NORMAL) for text in "▁ab")]

    def write(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes(model(pieces, BPE))

    encode = encoder(build(Case("LlamaTokenizer", "llama", write, ENDS).write(tmp_path / "model")))
    assert encode("ab é") == [1, 259, 263, 261, 3 + 0xC3, 3 + 0xA9, 2]  # ▁a wins over ab: it is the better merge


@pytest.mark.parametrize("name", CASES)
def test_the_tokenizer_that_was_built_is_reported(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    converted = build(case.write(tmp_path / "model"))
    class_name = case.tokenizer_class.removesuffix("Fast")
    assert converted.change.startswith(f"built from {' and '.join(CLASSES[class_name].files)} as {class_name}")
    assert converted.change.endswith("(tokenizer_config.json: tokenizer_class)")


@pytest.mark.parametrize("model_type", [name for name, row in ARCHITECTURES.items() if row.tokenizer_class])
def test_a_model_type_implies_its_class(tmp_path: Path, model_type: str) -> None:
    case = next(case for case in CASES.values() if case.tokenizer_class == ARCHITECTURES[model_type].tokenizer_class)
    folder = Case(case.tokenizer_class, model_type, case.vocabulary, {"add_bos_token": False}).write(tmp_path / "model")
    named = build(folder)
    change_json(folder / "tokenizer_config.json", tokenizer_class=None)
    implied = build(folder)
    assert implied.state == named.state
    assert implied.change.endswith(f"(the class of {model_type})")
    change_json(folder / "config.json", tokenizer_class=f"{case.tokenizer_class}Fast")
    assert build(folder).change.endswith("(config.json: tokenizer_class)")


def test_a_normalization_table_that_is_left_out_is_reported(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "spm.model").write_bytes(model([*FIRST, ("a", -1.0, NORMAL)], charsmap=b"\x04\x00\x00\x00trie"))

    change = build(Case("DebertaV2Tokenizer", "deberta-v2", write).write(tmp_path / "model")).change
    assert change.endswith("NFC in place of the file's normalization table, as in transformers 5")


@pytest.mark.parametrize(("side", "place"), [("right", 1), ("left", -2)])
def test_a_recipes_end_token_survives_truncation(tmp_path: Path, side: str, place: int) -> None:
    """e5-mistral: the recipe asks for </s>, which its tokenizer_config.json does not."""
    config = {"add_bos_token": True, "add_eos_token": False, "truncation_side": side}
    folder = Case("LlamaTokenizer", "mistral", llama, config).write(tmp_path / "model")
    facts, flags = read_facts(folder), Flags(max_length=3, pooling=("lasttoken",), normalize=True)
    (tmp_path / "out").mkdir()
    changes = write_tokenizer(
        facts, decide(facts, flags, read_recipe("e5-mistral-7b-instruct")).encoder, tmp_path / "out"
    )
    written = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    tokens = written.encode("the quick fox").tokens
    written.no_truncation()
    whole = written.encode("the quick fox").tokens
    assert whole[1] != whole[-2]
    assert tokens == ["<s>", whole[place], "</s>"]
    assert any(change.startswith("</s> added to the end of every text") for change in changes)


# ---- the whole journey


def test_a_checkpoint_of_an_older_release_exports_and_embeds_the_same(tmp_path: Path) -> None:
    checkpoint = write_sentence_bert(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "with")
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    manifest = export(checkpoint, tmp_path / "without")
    assert manifest.tokenization.changes[0] == (
        "built from vocab.txt as BertTokenizer (tokenizer_config.json: tokenizer_class)"
    )
    texts = [text for text in TEXTS if len(text) < 40]
    with OnnxEmbedder(tmp_path / "with") as expected, OnnxEmbedder(tmp_path / "without") as given:
        np.testing.assert_array_equal(given.encode(texts), expected.encode(texts))


@pytest.mark.torch
def test_a_converted_tokenizer_passes_verification(tmp_path: Path) -> None:
    from onnxembed.verify.verify import verify

    checkpoint = write_sentence_bert(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    export(checkpoint, tmp_path / "out")
    assert verify(tmp_path / "out").verification


# ---- refused


@pytest.mark.parametrize(
    ("name", "config", "cause"),
    [
        ("bert", {"tokenizer_class": "BertJapaneseTokenizer"}, "transformers cannot write one: MeCab, Sudachi"),
        ("bert", {"tokenizer_class": "PhobertTokenizer"}, "transformers cannot write one: .* VnCoreNLP"),
        ("bert", {"tokenizer_class": "LukeTokenizer"}, "tokenizer_class 'LukeTokenizer' has no tok.*; save one with"),
        ("bert", {"tokenizer_class": "RobertaTokenizer"}, "no vocab.json, merges.txt for its RobertaTokenizer; save"),
        ("bert", {"split_special_tokens": True}, "sets split_special_tokens"),
        ("bert", {"do_lower_case": "yes"}, "tokenizer_config.json: do_lower_case is 'yes', not true or false"),
        ("bert", {"cls_token": None}, "cls_token is null, but texts need one"),
        ("bert", {"cls_token": 5}, "cls_token is 5, not a token"),
        ("bert", {"cls_token": {"content": "[CLS]", "strip": True}}, "cls_token is .*, not a token"),
        ("bert", {"cls_token": {"content": "[CLS]", "lstrip": 1}}, "cls_token is .*, not a token"),
        ("bert", {"added_tokens_decoder": []}, r"added_tokens_decoder is \[\], not a token"),
        ("bert", {"added_tokens_decoder": {"x": token("a")}}, "'x', which is not an id"),
        ("bert", {"added_tokens_decoder": {"700": token("[X]")}}, r"'\[X\]' with the id 700, but after .* comes 500"),
        ("bert", {"additional_special_tokens": "fox"}, "additional_special_tokens is 'fox', not a list"),
        ("llama", {"add_bos_token": None}, "does not say add_bos_token; set it to true or false"),
        ("gemma", {"tokenizer_class": "LlamaTokenizer"}, "add_dummy_prefix is false.*set add_prefix_space"),
        ("llama", {"tokenizer_class": "GemmaTokenizer"}, "adds a space before a text"),
    ],
)
def test_contradictory_or_incomplete_files_are_an_error(
    tmp_path: Path, name: str, config: dict[str, Any], cause: str
) -> None:
    folder = CASES[name].write(tmp_path / "model")
    file = folder / "tokenizer_config.json"
    write_json(file, {**json.loads(file.read_text()), **config})
    with pytest.raises((ModelFilesError, UnsupportedError), match=cause) as caught:
        build(folder)
    assert str(folder) in str(caught.value)


def test_a_model_type_without_a_class_is_an_error(tmp_path: Path) -> None:
    folder = Case("BertTokenizer", "new", wordpiece).write(tmp_path / "model")
    assert build(folder)
    change_json(folder / "tokenizer_config.json", tokenizer_class=None)
    with pytest.raises(ModelFilesError, match="names a tokenizer_class, which new does not imply; save one with"):
        build(folder)


def test_another_models_vocabulary_is_an_error(tmp_path: Path) -> None:
    folder = CASES["bert"].write(tmp_path / "model")
    change_json(folder / "config.json", vocab_size=499)
    with pytest.raises(ModelFilesError, match=r"the 500 tokens of vocab\.txt .* vocab_size of 499"):
        build(folder)
    change_json(folder / "config.json", vocab_size=500)
    assert build(folder)
    change_json(folder / "tokenizer_config.json", cls_token="[NEW]")
    with pytest.raises(ModelFilesError, match="special tokens around a text"):
        build(folder)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("bert", "vocab.txt", b"\xff\xfe"),
        ("qwen2", "vocab.json", b"{"),
        ("qwen2", "vocab.json", b'{"a": 0}'),
        ("qwen2", "merges.txt", b"one two three\n"),
        ("xlm-roberta", "sentencepiece.bpe.model", model([("a", 0.0, NORMAL)])),
        ("xlm-roberta", "sentencepiece.bpe.model", model(FIRST, BPE)),
        ("llama", "tokenizer.model", model(FIRST, UNIGRAM)),
        ("llama", "tokenizer.model", model(FIRST, BPE, charsmap=b"\x04\x00\x00\x00trie")),
        ("albert", "spiece.model", model(FIRST, unk_id=9)),
        ("xlm-roberta", "sentencepiece.bpe.model", model([*FIRST, ("a", 0.0, NORMAL)], charsmap=b"no table")),
    ],
)
def test_a_broken_vocabulary_is_an_error_that_names_it(tmp_path: Path, name: str, file: str, content: bytes) -> None:
    folder = CASES[name].write(tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ModelFilesError, match=file):
        build(folder)


def test_every_vocabulary_file_is_fetched_from_the_hub() -> None:
    assert {file for tokenizer_class in CLASSES.values() for file in tokenizer_class.files} == set(VOCABULARIES)
