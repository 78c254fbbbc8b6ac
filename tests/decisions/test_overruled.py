"""Flags that contradict the model's own files are named; those that say what the files leave out are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.decisions.overruled import find_overruled
from onnxembed.facts.facts import read_facts
from onnxembed.recipes.book import read_recipe
from onnxembed.recipes.recipe import RecipeFact
from tiny import change_json, write_bert, write_json, write_sentence_bert
from tiny_heads import write_bge_m3, write_masked_lm
from tiny_rerankers import write_reranker

POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
MODULES = [
    {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
    for number, (path, name) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
]


def overruled(folder: Path, flags: Flags, recipe: str | None = None) -> tuple[str, ...]:
    facts, book = read_facts(folder), read_recipe(recipe) if recipe else None
    return find_overruled(facts, flags, book, decide(facts, flags, book))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(), []),
        (Flags(pooling=("mean",)), []),
        (Flags(pooling=("cls",)), ["--pooling: cls instead of mean (1_Pooling/config.json: pooling_mode)"]),
        (Flags(normalize=False), ["--no-normalize: no instead of yes (modules.json has a Normalize module)"]),
        (Flags(max_length=8), ["--max-length: 8 instead of 20 (sentence_bert_config.json: max_seq_length)"]),
    ],
)
def test_flags_against_the_files(tmp_path: Path, flags: Flags, words: list[str]) -> None:
    assert list(overruled(write_sentence_bert(tmp_path / "model"), flags)) == words


def test_flags_that_say_what_the_files_leave_out(tmp_path: Path) -> None:
    assert overruled(write_bert(tmp_path / "raw"), Flags(pooling=("cls",), normalize=True)) == ()


def test_a_recipe_that_replaces_the_models_own(tmp_path: Path) -> None:
    facts = read_facts(write_bert(tmp_path / "raw"))
    own, named = read_recipe("e5-small-v2"), read_recipe("bge-small-en-v1.5")
    named = replace(named, pooling=RecipeFact(("cls",), "told", "s"), normalize=RecipeFact(True, "told", "s"))
    own = replace(own, pooling=RecipeFact(("mean",), "said", "s"), normalize=RecipeFact(True, "said", "s"))
    made = decide(facts, Flags(), named)
    words = [line for line in find_overruled(facts, Flags(), named, made, own) if "mean" in line]
    assert words == ["--recipe bge-small-en-v1.5: cls instead of mean (e5-small-v2.toml: said)"]
    assert find_overruled(facts, Flags(), named, made, named) == ()
    assert find_overruled(facts, Flags(), named, made) == ()


def test_a_task_that_the_files_do_not_name(tmp_path: Path) -> None:
    splade = write_masked_lm(tmp_path / "splade", pooling={"pooling_strategy": "max"})
    stated = "config_sentence_transformers.json: model_type is SparseEncoder"
    dense = Flags(task="embedding", pooling=("mean",), normalize=False)
    assert overruled(splade, dense) == (f"--task: embedding instead of sparse ({stated})",)
    assert overruled(splade, Flags(task="sparse")) == ()
    reranker = write_reranker(tmp_path / "reranker")
    assert overruled(reranker, dense) == (
        "--task: embedding instead of reranking (config.json: architectures names BertForSequenceClassification)",
    )
    sentence = write_masked_lm(tmp_path / "sentence")
    write_json(sentence / "modules.json", MODULES)
    write_json(sentence / "1_Pooling/config.json", POOLING)
    assert overruled(sentence, Flags(task="sparse")) == ("--task: sparse instead of embedding (modules.json)",)


def test_one_of_several_tasks_is_the_models_own(tmp_path: Path) -> None:
    folder = write_bge_m3(tmp_path / "bge-m3")
    assert overruled(folder, Flags(task="embedding")) == ()
    assert overruled(write_masked_lm(tmp_path / "mlm"), Flags(task="sparse")) == ()


def test_pairs_without_their_template(tmp_path: Path) -> None:
    causal = write_bert(tmp_path / "qwen")
    recipe = "Qwen3-Reranker-0.6B"
    (words,) = overruled(causal, Flags(task="reranking", plain_pairs=True), recipe)
    assert words.startswith(f"--plain-pairs: pairs without their template ({recipe}.toml")
    assert overruled(causal, Flags(task="reranking"), recipe) == ()


def test_a_choice_among_adapters_contradicts_nobody(tmp_path: Path) -> None:
    """No file names the adapter of such a model: each call of the reference does."""
    folder = write_sentence_bert(tmp_path / "model")
    change_json(folder / "config.json", lora_adaptations=["one", "other"])
    assert overruled(folder, Flags(adapter="none")) == ()
    assert overruled(folder, Flags(adapter="other")) == ()
