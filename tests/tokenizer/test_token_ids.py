"""Tokens of a model by their text, as the reference finds them."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models

from onnxembed.tokenizer.token_ids import TokenIds


@pytest.mark.torch
@pytest.mark.parametrize("words", [["a", "c"], ["a", "b", "none"], ["b", "a"], ["[UNK]"]])
@pytest.mark.parametrize("unknown", ["[UNK]", "b"])
def test_words_with_the_id_of_the_unknown_token_are_not_skipped(words: list[str], unknown: str) -> None:
    """The vocabulary has a gap, so a token that is added gets the id of another one."""
    transformers = pytest.importorskip("transformers")
    modules = pytest.importorskip("sentence_transformers.multi_vector_encoder.modules")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "c": 1, "a": 3}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["b"])
    assert tokenizer.token_to_id("b") == tokenizer.token_to_id("a")
    mask = modules.MultiVectorMask(words)
    mask.resolve_with_tokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown))
    expected = [] if mask._skiplist_ids is None else mask._skiplist_ids.tolist()
    assert TokenIds(tokenizer, {"unk_token": unknown}).known(words) == tuple(sorted(set(expected)))
