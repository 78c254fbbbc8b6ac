"""What goes around every text: the post-processors of the tokenizer classes."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.processors import PostProcessor, RobertaProcessing, TemplateProcessing

from onnxembed.errors import ModelFilesError
from onnxembed.tokenizer.vocabularies.tokenizer_class import CheckpointVocabulary


def cls_and_sep(source: CheckpointVocabulary, tokenizer: Tokenizer) -> PostProcessor:
    """BERT: [CLS] A [SEP], and B [SEP] of the second type."""
    cls, sep = source.special.content("cls_token"), source.special.content("sep_token")
    return TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=_with_ids(tokenizer, cls, sep),
    )


def roberta(source: CheckpointVocabulary, tokenizer: Tokenizer) -> PostProcessor:
    """RoBERTa: <s> A </s></s> B </s>. The options shape offsets, not ids."""
    cls, sep = source.special.content("cls_token"), source.special.content("sep_token")
    end, start = _with_ids(tokenizer, sep, cls)
    return RobertaProcessing(end, start, source.flag("trim_offsets", True), source.flag("add_prefix_space", False))


def bos_and_eos(source: CheckpointVocabulary, tokenizer: Tokenizer) -> PostProcessor:
    """XLM-R: <s> A </s></s> B </s>."""
    bos, eos = source.special.content("bos_token"), source.special.content("eos_token")
    return TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=_with_ids(tokenizer, bos, eos),
    )


def flagged_bos_eos(source: CheckpointVocabulary, tokenizer: Tokenizer) -> PostProcessor:
    """Decoders: a first token only if add_bos_token is true, a last one only if add_eos_token is true."""
    first = [source.special.content("bos_token")] if source.flag("add_bos_token", False) else []
    last = [source.special.content("eos_token")] if source.flag("add_eos_token", False) else []
    single = [f"{token}:0" for token in first] + ["$A:0"] + [f"{token}:0" for token in last]
    second = [f"{token}:1" for token in first] + ["$B:1"] + [f"{token}:1" for token in last]
    return TemplateProcessing(single=single, pair=single + second, special_tokens=_with_ids(tokenizer, *first, *last))


def required_bos_eos(source: CheckpointVocabulary, tokenizer: Tokenizer) -> PostProcessor:
    """As `flagged_bos_eos`, but add_bos_token is required: its default differs between transformers 4 and 5."""
    if source.optional_flag("add_bos_token") is None:
        raise ModelFilesError(
            f"{source.folder / 'tokenizer_config.json'} does not say add_bos_token; set it to true or false "
            "(left out, transformers 4 began every text with bos_token, transformers 5 does not)"
        )
    return flagged_bos_eos(source, tokenizer)


def _with_ids(tokenizer: Tokenizer, *tokens: str) -> list[tuple[str, int]]:
    """Tokens with their ids; all are in the tokenizer, which was given its special tokens before."""
    ids = ((token, tokenizer.token_to_id(token)) for token in tokens)
    return [(token, index) for token, index in ids if index is not None]
