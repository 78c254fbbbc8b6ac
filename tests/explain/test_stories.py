"""Five published stories of two systems and one model, each reproduced with a tiny model and stock transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.arrays import Array
from onnxembed.decisions.flags import Flags
from onnxembed.explain import Report, explain, explain_scores
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from running import needs_torch
from tiny import VOCAB, change_json, write_sentence_bert, write_tokenizer
from tiny_embedders import texts_of_many_lengths

pytestmark = [needs_torch, pytest.mark.torch]

TEXTS = texts_of_many_lengths(12)
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCAB),
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 70,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DECODER = {**SIZES, "num_key_value_heads": 2}


def checkpoint(folder: Path, model_type: str, config: dict[str, Any], *, std: float = 0.15, **files: Any) -> Path:
    """A sentence-transformers checkpoint of random weights."""
    from parity import stock_checkpoint

    write_sentence_bert(folder, hidden_size=48, max_length=40, **files)
    stock_checkpoint(folder, model_type, config, std=std)
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return folder


def pooled(folder: Path, pool: Callable[[Any], Any], texts: list[str] | None = None, **config: Any) -> Array:
    """What AutoModel and a pooling of [T, D] make of each text, unscaled; with other values in its config."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    changed = AutoConfig.from_pretrained(folder)
    for key, value in config.items():
        setattr(changed, key, value)
    model = AutoModel.from_pretrained(folder, config=changed, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_file=str(folder / "tokenizer.json"))
    vectors = []
    for text in texts or TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            vectors.append(pool(model(input_ids=ids).last_hidden_state[0]).numpy())
    return np.stack(vectors)


def unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def explained(folder: Path, theirs: Array, **flags: Any) -> Report:
    """The report about vectors of the texts, of which nothing may be left over."""
    export(folder, folder.parent / "onnx", Options(flags=Flags(**flags)))
    with OnnxEmbedder(folder.parent / "onnx", threads=1) as model:
        report = explain(model, TEXTS, theirs)
    assert report.explained, report.verdict
    return report


def causes(report: Report) -> set[str]:
    return {cause.name for cause in report.causes}


def test_tei_and_sentence_transformers_differ_by_is_causal_and_by_normalization(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "llama", DECODER, std=0.1, pooling="mean")
    theirs = pooled(folder, lambda tokens: tokens.mean(0), is_causal=True)
    report = explained(folder, theirs, attention="bidirectional")
    assert causes(report) == {"attention", "normalization"}
    assert "let tokens see only earlier ones (causal)" in report.verdict


def test_vllm_runs_a_bidirectional_model_causally_under_last_token_pooling(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "llama", DECODER, std=0.1, pooling="lasttoken")
    theirs = unit(pooled(folder, lambda tokens: tokens[-1], is_causal=True))
    report = explained(folder, theirs, attention="bidirectional")
    assert causes(report) == {"attention"}
    assert "is_causal" in report.causes[0].fixes["vLLM"]


def test_flagembedding_scales_vectors_and_auto_model_does_not(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "bert", SIZES, pooling="cls")
    report = explained(folder, pooled(folder, lambda tokens: tokens[0]))
    assert causes(report) == {"normalization"}
    assert "normalize_embeddings=True" in report.causes[0].fixes["FlagEmbedding"]


def test_fastembed_takes_the_first_token_of_a_mean_pooled_e5(tmp_path: Path) -> None:
    config = {**SIZES, "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 66}
    prompts = {"query": "to: ", "passage": "of: "}
    folder = checkpoint(tmp_path / "checkpoint", "xlm-roberta", config, prompts=prompts, default_prompt_name="query")
    theirs = unit(pooled(folder, lambda tokens: tokens[0]))
    report = explained(folder, theirs)
    assert causes(report) == {"pooling", "prompt"}
    assert "put 'to: ' before each text yourself" in str([cause.fixes for cause in report.causes])


def test_tei_reads_the_first_token_of_a_modernbert_reranker_that_takes_the_mean(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    from parity import stock_checkpoint

    folder = tmp_path / "checkpoint"
    config = {**SIZES, "num_attention_heads": 4, "cls_token_id": 2, "sep_token_id": 3, "num_labels": 1}
    task = "AutoModelForSequenceClassification"
    stock_checkpoint(folder, "modernbert", {**config, "classifier_pooling": "mean"}, task=task)
    write_tokenizer(folder)
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    changed = AutoConfig.from_pretrained(folder, classifier_pooling="cls")
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=changed, attn_implementation="eager")
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_file=str(folder / "tokenizer.json"))
    pairs = [(query, document) for query in TEXTS[:2] for document in TEXTS[2:8]]
    with torch.no_grad():
        fed = [tokenizer([query], [document], return_tensors="pt")["input_ids"] for query, document in pairs]
        logits = np.array([float(model.eval()(input_ids=ids).logits[0, 0]) for ids in fed])
    export(folder, tmp_path / "onnx")
    with OnnxReranker(tmp_path / "onnx", threads=1) as reranker:
        report = explain_scores(reranker, pairs, 1 / (1 + np.exp(-logits)))
        assert causes(report) == {"head"}, report.verdict
        report = explain_scores(reranker, pairs, logits)
        assert causes(report) == {"head", "activation of scores"}, report.verdict
