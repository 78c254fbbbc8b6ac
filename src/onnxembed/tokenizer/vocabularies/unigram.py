"""sentencepiece Unigram models, as XLM-R, CamemBERT, ALBERT and DeBERTa-v2 read them."""

from __future__ import annotations

from dataclasses import replace

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.tokenizer.vocabularies.sentencepiece import (
    CONTROL,
    UNIGRAM,
    UNKNOWN,
    USER_DEFINED,
    Pieces,
    read_pieces,
)
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary, Contents, Vocabulary

Scores = list[tuple[str, float]]
SPACE = "▁"


def read_xlm_roberta(source: CheckpointVocabulary) -> Vocabulary:
    """fairseq's ids: four tokens of its own instead of the file's three (<unk>, <s>, </s>), so all are one higher."""
    file = read_pieces(source.folder / "sentencepiece.bpe.model")
    file.expect(UNIGRAM, UNKNOWN, CONTROL, CONTROL)
    first = [(source.special.content(role), 0.0) for role in ("bos_token", "pad_token", "eos_token", "unk_token")]
    scores = [*first, *_scores(file)[3:], (source.special.content("mask_token"), 0.0)]
    return _vocabulary(source, file, scores)


def build_xlm_roberta(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """The file's normalization table; words are cut at spaces; the unknown token is the fourth."""
    return _words(source, contents.scores, unk_id=3, normalizer=_charsmap(contents))


def read_camembert(source: CheckpointVocabulary) -> Vocabulary:
    """fairseq's ids again: five tokens of its own, then the file's from <s> on."""
    file = read_pieces(source.folder / "sentencepiece.bpe.model")
    file.expect(UNIGRAM, UNKNOWN, CONTROL, CONTROL)
    pad, unk = source.special.content("pad_token"), source.special.content("unk_token")
    first = [("<s>NOTUSED", 0.0), (pad, 0.0), ("</s>NOTUSED", 0.0), (unk, 0.0), ("<unk>NOTUSED", -100.0)]
    scores = [*first, *_scores(file)[1:], (source.special.content("mask_token"), 0.0)]
    return _vocabulary(source, file, scores)


def build_camembert(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """As XLM-R; the unknown token is found by its text."""
    unk_id = contents.ids.get(source.special.content("unk_token"), 0)
    return _words(source, contents.scores, unk_id=unk_id, normalizer=_charsmap(contents))


def read_albert(source: CheckpointVocabulary) -> Vocabulary:
    """The file's own ids."""
    file = read_pieces(source.folder / "spiece.model")
    file.expect(UNIGRAM)
    return _vocabulary(source, file, _scores(file))


def build_albert(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """Quotes, accents and case are normalized first."""
    steps: list[Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not source.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if source.flag("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    if charsmap := _charsmap(contents):
        steps.append(charsmap)
    return _words(source, contents.scores, unk_id=contents.unk_id, normalizer=normalizers.Sequence(steps))


def read_deberta_v2(source: CheckpointVocabulary) -> Vocabulary:
    """The file's own ids, without its normalization table: transformers 5 applies NFC instead."""
    file = read_pieces(source.folder / "spm.model")
    file.expect(UNIGRAM)
    left_out = ", NFC in place of the file's normalization table, as in transformers 5" if file.charsmap else ""
    return replace(_vocabulary(source, file, _scores(file)), left_out=left_out)


def build_deberta_v2(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """NFC and single spaces; the unknown token is found by its text."""
    scores = contents.scores
    unk = (source.special.content("unk_token"), 0.0)
    tokenizer = Tokenizer(models.Unigram(scores, scores.index(unk) if unk in scores else contents.unk_id, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Lowercase()] if source.flag("do_lower_case", False) else []),
            normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
            normalizers.NFC(),
            normalizers.Strip(left=False, right=True),
        ]
    )
    scheme = "always" if _prefix(source) else "first"
    punctuation = [pre_tokenizers.Punctuation("isolated")] if source.flag("split_by_punct", False) else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*punctuation, _metaspace(scheme)])
    tokenizer.decoder = decoders.Metaspace(SPACE, scheme)
    return tokenizer


def marked(file: Pieces) -> tuple[AddedToken, ...]:
    """The pieces that are found whole in a text: those for control, which are special, and the user's own."""
    return tuple(
        AddedToken(piece.text, normalized=False, special=piece.piece_type == CONTROL)
        for piece in file.pieces
        if piece.piece_type in (CONTROL, USER_DEFINED)
    )


def _words(source: CheckpointVocabulary, scores: Scores, unk_id: int, normalizer: Normalizer | None) -> Tokenizer:
    """A tokenizer that splits at spaces and puts the mark of a space before each word."""
    tokenizer = Tokenizer(models.Unigram(scores, unk_id, False))
    if normalizer:
        tokenizer.normalizer = normalizer
    scheme = "always" if _prefix(source) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), _metaspace(scheme)])
    tokenizer.decoder = decoders.Metaspace(SPACE, scheme)
    return tokenizer


def _prefix(source: CheckpointVocabulary) -> bool:
    """Whether a text begins as if after a space: tokenizer_config.json says, else the class does so."""
    return source.optional_flag("add_prefix_space") is not False


def _vocabulary(source: CheckpointVocabulary, file: Pieces, scores: Scores) -> Vocabulary:
    """The vocabulary of a file that begins texts as its class does, or whose tokenizer_config.json says how."""
    if source.optional_flag("add_prefix_space") is None and not file.add_dummy_prefix:
        raise ModelFilesError(
            f"{file.file} adds no space before a text (add_dummy_prefix is false), its tokenizer's class does; "
            "set add_prefix_space in tokenizer_config.json"
        )
    return Vocabulary(Contents(scores, charsmap=file.charsmap, unk_id=file.unk_id), marked(file))


def _metaspace(scheme: str) -> PreTokenizer:
    return pre_tokenizers.Metaspace(SPACE, scheme)


def _charsmap(contents: Contents) -> Normalizer | None:
    return normalizers.Precompiled(contents.charsmap) if contents.charsmap else None


def _scores(file: Pieces) -> Scores:
    return [(piece.text, piece.score) for piece in file.pieces]
