"""sentencepiece BPE models whose unknown characters become bytes, as Llama and Gemma read them."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from onnxembed.errors import ModelFilesError
from onnxembed.tokenizer.vocabularies.sentencepiece import BPE, Pieces, read_pieces
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary, Contents, Vocabulary
from onnxembed.tokenizer.vocabularies.unigram import SPACE, marked

FILE = "tokenizer.model"


def read_llama(source: CheckpointVocabulary) -> Vocabulary:
    """The file's own ids, and the merges that they imply."""
    file = _read(source)
    if (
        source.flag("add_prefix_space", True)
        and not file.add_dummy_prefix
        and source.optional_flag("add_prefix_space") is None
    ):
        raise ModelFilesError(
            f"{file.file} adds no space before a text (add_dummy_prefix is false), LlamaTokenizer does; "
            "set add_prefix_space in tokenizer_config.json"
        )
    return Vocabulary(_contents(file), marked(file))


def build_llama(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """Llama and Mistral: a space before every text unless add_prefix_space says no, nothing normalized."""
    prefix = source.flag("add_prefix_space", True)
    tokenizer = Tokenizer(models.BPE(contents.ids, contents.merges, fuse_unk=True, byte_fallback=True))
    # `legacy`: a space before the text after every special token too, not only at the start.
    scheme = ("always" if source.flag("legacy", False) else "first") if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=False)
    strip = [decoders.Strip(content=" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def read_gemma(source: CheckpointVocabulary) -> Vocabulary:
    """The file's own ids, and the merges that they imply."""
    file = _read(source)
    if file.add_dummy_prefix:
        raise ModelFilesError(
            f"{file.file} adds a space before a text (add_dummy_prefix), which GemmaTokenizer does not; "
            "name the class that reads it in tokenizer_config.json: tokenizer_class"
        )
    return Vocabulary(_contents(file), marked(file))


def build_gemma(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """Gemma: no space before a text."""
    unk = source.special.content("unk_token")
    tokenizer = Tokenizer(models.BPE(contents.ids, contents.merges, fuse_unk=True, unk_token=unk, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def merges(vocab: dict[str, int]) -> Iterator[tuple[str, str]]:
    """The merges that sentencepiece does not store: each way to join two pieces into one, in the order of ids."""
    for piece in sorted(vocab, key=vocab.__getitem__):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                yield left, right


def _read(source: CheckpointVocabulary) -> Pieces:
    file = read_pieces(source.folder / FILE)
    file.expect(BPE)
    if file.charsmap:
        raise ModelFilesError(
            f"{file.file} has a normalization table, which its tokenizer's class does not apply; "
            "save a tokenizer.json that does what the model was trained with"
        )
    return file


def _contents(file: Pieces) -> Contents:
    vocab = {piece.text: index for index, piece in enumerate(file.pieces)}
    return Contents(vocab, list(merges(vocab)))
