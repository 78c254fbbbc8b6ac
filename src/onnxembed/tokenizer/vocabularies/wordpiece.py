"""vocab.txt: WordPiece, as BERT and its kin read it."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary, Contents, Vocabulary


def read_wordpiece(source: CheckpointVocabulary) -> Vocabulary:
    """One token per line; its id is the line's number."""
    return Vocabulary(Contents(models.WordPiece.read_file(str(source.folder / "vocab.txt"))))


def build_wordpiece(source: CheckpointVocabulary, contents: Contents) -> Tokenizer:
    """BERT: accents, case and Chinese characters as the flags say; words are cut at spaces and punctuation."""
    tokenizer = Tokenizer(models.WordPiece(contents.ids, unk_token=source.special.content("unk_token")))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=source.flag("tokenize_chinese_chars", True),
        strip_accents=source.optional_flag("strip_accents"),
        lowercase=source.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer
