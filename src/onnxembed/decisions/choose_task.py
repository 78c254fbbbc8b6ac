"""What a checkpoint is for."""

from __future__ import annotations

from onnxembed.decisions.flags import Flags
from onnxembed.errors import UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.multi_vector import MULTI_VECTOR_CLASSES
from onnxembed.facts.sparse import SPARSE_CLASSES
from onnxembed.manifest import Decision, Task
from onnxembed.recipes.recipe import Recipe

CLASSIFIER = "ForSequenceClassification"


def choose_task(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[Task]:
    """What a checkpoint is for: the flag, else sentence-transformers' files, the recipe, config.json's class.

    Raises UsageError for a flag that its files contradict.
    """
    if flags.task is not None:
        if (
            flags.task == "reranking"
            and facts.has_modules
            and facts.sentence_transformers_class in (None, "SentenceTransformer")
        ):
            raise UsageError(f"--task reranking: {facts.folder / 'modules.json'} is that of an embedding model")
        if flags.task == "embedding" and facts.sentence_transformers_class == "CrossEncoder":
            file = facts.folder / "config_sentence_transformers.json"
            raise UsageError(f"--task embedding: {file} says that this is a CrossEncoder")
        return Decision(flags.task, "flag", "--task")
    if facts.sentence_transformers_class == "CrossEncoder":
        return Decision.from_file("reranking", "config_sentence_transformers.json", "model_type is CrossEncoder")
    if (own := own_task(facts)) is not None:
        return own
    if facts.has_modules:
        return Decision("embedding", "file", "modules.json")
    if recipe and recipe.task:
        return recipe.decision(recipe.task)
    if (named := named_class(facts)).endswith(CLASSIFIER):
        return Decision.from_file("reranking", "config.json", f"architectures names {named}")
    return Decision.default("embedding", "config.json names no classifier")


def named_class(facts: Facts) -> str:
    """The first class that config.json's architectures names; empty where it names none."""
    names = facts.config.get("architectures") or [""]
    return str(names[0]) if isinstance(names, list) else ""


def own_task(facts: Facts) -> Decision[Task] | None:
    """The one task of a model whose files say that it makes no sentence embedding; None for other models."""
    reason = f"config_sentence_transformers.json: model_type is {facts.sentence_transformers_class}"
    if facts.sentence_transformers_class in SPARSE_CLASSES:
        return Decision("sparse", "file", reason)
    if facts.sentence_transformers_class in MULTI_VECTOR_CLASSES:
        return Decision("multi_vector", "file", reason)
    if facts.multi_vector is not None and facts.multi_vector.of_checkpoint:
        return Decision.from_file("multi_vector", "config.json", "architectures names HF_ColBERT")
    return None
