"""vocab.json and merges.txt: byte-level BPE, as RoBERTa, GPT-2 and Qwen2 read it."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from onnxembed.errors import ModelFilesError
from onnxembed.json_file import read_json
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary, Contents, Vocabulary

# What Qwen2 splits a text into before it merges; from transformers' Qwen2Tokenizer.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_gpt2(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """GPT-2 and RoBERTa: split by the regular expression that ByteLevel has built in, nothing normalized."""
    tokenizer = Tokenizer(_bpe(contents))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=source.flag("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def build_qwen2(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """Qwen2: NFC, and a regular expression of its own."""
    tokenizer = Tokenizer(_bpe(contents))
    tokenizer.normalizer = normalizers.NFC()
    prefix = source.flag("add_prefix_space", False)
    split = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated", invert=False)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read_byte_level(source: CheckpointVocabulary) -> Vocabulary:
    """The tokens with their ids, and the merges in their order."""
    ids = read_json(source.folder / "vocab.json")
    if strange := [
        token for token, number in ids.items() if type(number) is not int or not 0 <= number <= 2 * len(ids)
    ]:
        raise ModelFilesError(  # the library itself would make a table up to the largest id
            f"{source.folder / 'vocab.json'}: the id of {strange[0]!r} is {ids[strange[0]]!r}, among {len(ids)} tokens"
        )
    vocab, merges = models.BPE.read_file(str(source.folder / "vocab.json"), str(source.folder / "merges.txt"))
    for left, right in merges:  # the library itself breaks off here, without an error that can be caught
        if missing := [token for token in (left, right, left + right) if token not in vocab]:
            raise ModelFilesError(
                f"{source.folder / 'merges.txt'} joins {left!r} and {right!r}, but vocab.json has no {missing[0]!r}"
            )
    return Vocabulary(Contents(vocab, merges))


def _bpe(contents: Contents) -> models.BPE:
    return models.BPE(
        contents.ids, contents.merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
    )
