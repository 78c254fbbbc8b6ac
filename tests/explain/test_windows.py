"""Changes inside the encoders that are not BERT, as stock transformers makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.arrays import Array
from onnxembed.explain import explain
from onnxembed.explain.windows import windows
from onnxembed.export.pipeline import export
from running import needs_torch
from tiny import VOCAB, change_json, write_sentence_bert
from tiny_embedders import texts_of_many_lengths

TEXTS = texts_of_many_lengths(12)
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCAB),
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 70,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MODERNBERT = {
    **SIZES,
    "model_type": "modernbert",
    "local_attention": 6,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
ROBERTA = {**SIZES, "model_type": "roberta", "pad_token_id": 4, "type_vocab_size": 1, "max_position_embeddings": 69}
GEMMA = {
    **SIZES,
    "model_type": "gemma3_text",
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 10,
    "sliding_window": 6,
    "sliding_window_pattern": 3,
}
GLOBAL, LOCAL = {"rope_theta": 160_000.0, "rope_type": "default"}, {"rope_theta": 10_000.0, "rope_type": "default"}


def vectors(folder: Path, first: int | None = None, **config: Any) -> Array:
    """Normalized means of AutoModel's tokens, each text by itself, with other values of its config."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    own = AutoConfig.from_pretrained(folder)
    # Made anew: Gemma's class derives the window from use_bidirectional_attention.
    changed = type(own)(**{**own.to_dict(), **config})
    transformer = AutoModel.from_pretrained(folder, config=changed, attn_implementation="eager").eval()
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_file=str(folder / "tokenizer.json"))
    made = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")["input_ids"]
        positions = {} if first is None else {"position_ids": torch.arange(ids.shape[1])[None] + first}
        with torch.no_grad():
            tokens = transformer(input_ids=ids, **positions).last_hidden_state
        made.append(torch.nn.functional.normalize(tokens.mean(1), dim=-1)[0].numpy())
    return np.stack(made)


def exported(work: Path, config: dict[str, Any]) -> Path:
    """A checkpoint with these values in its config; its artifact is the folder onnx beside it."""
    from parity import stock_checkpoint

    folder = write_sentence_bert(work / "checkpoint", hidden_size=40, max_length=40)
    stock_checkpoint(folder, config["model_type"], {key: value for key, value in config.items() if key != "model_type"})
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    export(folder, work / "onnx")
    return folder


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("config", "changed", "expected", "words"),
    [
        (MODERNBERT, {"local_attention": 1000}, "attention window", "let every layer see the whole text"),
        (MODERNBERT, {"local_attention": 12}, "attention window", "a window twice as wide"),
        (MODERNBERT, {"local_attention": 4}, "attention window", "one token narrower"),
        (
            MODERNBERT,
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            "attention window",
            "their global layers one layer later",
        ),
        (
            MODERNBERT,
            {"rope_parameters": {"full_attention": GLOBAL, "sliding_attention": GLOBAL}},
            "rotary positions",
            "turn positions in local layers as in global ones",
        ),
        (GEMMA, {"use_bidirectional_attention": True}, "attention", "let all tokens see each other"),
        (ROBERTA, {"first": 0}, "positions", "count positions from 0"),
        (ROBERTA, {"first": 2}, "positions", "count positions from 2"),
    ],
    ids=str,
)
def test_a_change_inside_the_encoder_is_named(
    tmp_path: Path, config: dict[str, Any], changed: dict[str, Any], expected: str, words: str
) -> None:
    folder = exported(tmp_path, config)
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        report = explain(model, TEXTS, vectors(folder, **changed))
    assert (report.explained, [cause.name for cause in report.causes]) == (True, [expected]), report.verdict
    assert words in report.verdict


@needs_torch
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.* texts? (was|were) longer")
def test_of_two_explanations_the_one_with_fewer_changes_is_named(tmp_path: Path) -> None:
    """The last token sees all others: without the token that ends texts, it is the last but one of a text cut later."""
    from explaining.checkpoints import write_tiny
    from explaining.reference import Reference
    from explaining.table import tiny_texts

    folder, texts = write_tiny(tmp_path / "checkpoint", "qwen2"), tiny_texts()
    export(folder, tmp_path / "onnx")
    theirs = Reference(folder).vectors(texts, config={"sliding_window": 10}, dropped="all")
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        report = explain(model, texts, theirs)
    assert report.explained, report.verdict
    assert {cause.name for cause in report.causes} == {"attention window", "special tokens"}


@needs_torch
@pytest.mark.torch
def test_windows_that_only_short_texts_fit_into_are_seen(tmp_path: Path) -> None:
    """Short texts are run first: what moves none of them may move longer ones, and is no rounding."""
    exported(tmp_path, {**MODERNBERT, "local_attention": 16})
    strange = np.random.default_rng(3).normal(0, 1, (len(TEXTS), 40)).astype(np.float32)
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        report = explain(model, TEXTS, strange)
    assert not report.explained, report.verdict
    assert not [words for words in report.unseen if "window" in words or "global" in words]


@needs_torch
@pytest.mark.torch
def test_padding_that_a_decoder_masks_and_pools_is_named(tmp_path: Path) -> None:
    """What padding holds depends on the tokens it sees, those of the text. Heads of 8 have runs without a mask."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    heads = {"num_attention_heads": 5, "num_key_value_heads": 5}
    folder = exported(tmp_path, {**SIZES, **heads, "model_type": "llama"})
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    fed = {name: batch[name] for name in ("input_ids", "attention_mask")}
    transformer = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(transformer(**fed).last_hidden_state.mean(1), dim=-1).numpy()
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        report = explain(model, TEXTS, theirs)
    assert (report.explained, [cause.name for cause in report.causes]) == (True, ["padding"]), report.verdict
    assert "count padding in the pooling" in report.verdict


@needs_torch
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.* texts? (was|were) longer")
def test_no_limit_is_tried_for_which_roberta_has_no_positions(tmp_path: Path) -> None:
    """Of 69 rows, the first 5 are for no token: 64 tokens are the most, and a text of 82 is there to be cut."""
    exported(tmp_path, ROBERTA)
    texts = [*TEXTS, "of the to " * 26 + "of the"]
    with OnnxEmbedder(tmp_path / "onnx", threads=1) as model:
        theirs = np.asarray(model.encode([*texts[:-1], texts[-1][::-1]]))
        report = explain(model, texts, theirs)
    assert (report.explained, report.causes) == (False, ()), report.verdict


@pytest.mark.parametrize(
    "config",
    [{}, {"sliding_window": None}, {"sliding_window": 4096, "use_sliding_window": False, "num_hidden_layers": 4}],
    ids=str,
)
def test_a_model_without_windows_has_no_hypotheses_about_them(config: dict[str, Any]) -> None:
    assert not list(windows(config))


@pytest.mark.parametrize(
    ("config", "half", "later"),
    [
        ({"local_attention": 128, "global_attn_every_n_layers": 3}, {"local_attention": 64}, "ggll"),  # of gllg
        ({"sliding_window": 10, "sliding_window_pattern": 3}, {"sliding_window": 5}, "lllg"),  # of llgl
        ({"sliding_window": 10, "use_sliding_window": True, "max_window_layers": 2}, {"sliding_window": 5}, "lggl"),
    ],
    ids=["ModernBERT", "Gemma", "Qwen"],
)
def test_published_keys_name_the_layers(config: dict[str, Any], half: dict[str, int], later: str) -> None:
    changes = [dict(each.build["windows"]) for each in windows({**config, "num_hidden_layers": 4})]
    types = {"g": "full_attention", "l": "sliding_attention"}
    assert half in changes
    assert {"layer_types": [types[letter] for letter in later]} in changes
