"""Facts + recipe + flags -> how a pair of texts becomes a score. Standard library only.

What decides is what decides for sentence-transformers' CrossEncoder; a template, which its files hold as a
program, comes from a recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.facts import Facts
from onnxembed.json_file import read_json
from onnxembed.manifest import Decision, HeadPooling, Reranking, ScoreActivation, Task, Template
from onnxembed.model_types import MODEL_TYPES
from onnxembed.module_facts import DENSE_ACTIVATIONS
from onnxembed.recipes import Recipe, Said
from onnxembed.resolve import EncoderDecisions, Flags, resolve_encoder
from onnxembed.resolve_token_heads import own_task

CLASSIFIER = "ForSequenceClassification"

# What a head reads where config.json decides: the key, its default, and what its values are here.
HEAD_POOLING_KEYS: dict[str, tuple[str, str, dict[str, HeadPooling]]] = {
    "modernbert": ("classifier_pooling", "cls", {"cls": "cls", "mean": "mean"}),
    "eurobert": ("classifier_pooling", "late", {"bos": "cls", "mean": "mean", "late": "mean_of_logits"}),
}

# torch's shorter names of the classes in `DENSE_ACTIVATIONS`.
SHORT_ACTIVATIONS = {f"torch.nn.{name.rpartition('.')[2]}": value for name, value in DENSE_ACTIVATIONS.items()}


@dataclass(frozen=True, kw_only=True)
class RerankingDecisions(EncoderDecisions):
    """Everything that is decided about a reranker."""

    reranking: Reranking


def choose_task(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[Task]:
    """What a checkpoint is for: the flag, else sentence-transformers' files, the recipe, config.json's class.

    Raises UsageError for a flag that its files contradict.
    """
    if flags.task is not None:
        if flags.task == "reranking" and facts.has_modules and facts.kind in (None, "SentenceTransformer"):
            raise UsageError(f"--task reranking: {facts.folder / 'modules.json'} is that of an embedding model")
        if flags.task == "embedding" and facts.kind == "CrossEncoder":
            file = facts.folder / "config_sentence_transformers.json"
            raise UsageError(f"--task embedding: {file} says that this is a CrossEncoder")
        return Decision(flags.task, "flag", "--task")
    if facts.kind == "CrossEncoder":
        return Decision("reranking", "file", "config_sentence_transformers.json: model_type is CrossEncoder")
    if (own := own_task(facts)) is not None:
        return own
    if facts.has_modules:
        return Decision("embedding", "file", "modules.json")
    if recipe and recipe.task:
        return _from_recipe(recipe, recipe.task)
    if (named := _class(facts)).endswith(CLASSIFIER):
        return Decision("reranking", "file", f"config.json: architectures names {named}")
    return Decision("embedding", "architecture", "config.json names no classifier")


def resolve_reranking(facts: Facts, flags: Flags | None = None, recipe: Recipe | None = None) -> RerankingDecisions:
    """Decide how pairs become scores.

    Raises ModelFilesError for what the files leave out or contradict, UnsupportedError for what onnxembed does
    not do, UsageError for flags that do not go with a reranker.
    """
    flags = flags or Flags()
    if flags.pooling is not None or flags.normalize is not None:
        raise UsageError(
            f"{facts.folder} is a reranker, and --pooling and --normalize are for embeddings; "
            "--task embedding makes it an embedding model, without its head"
        )
    if prompts := [name for name, text in facts.prompts.items() if text]:
        file = facts.folder / "config_sentence_transformers.json"
        raise UnsupportedError(f"{file} has prompts ({', '.join(prompts)}), which onnxembed does not put before pairs")
    encoder = resolve_encoder(facts, flags, recipe)
    answers = _answers(facts, recipe)
    labels = _labels(facts, answers)
    return RerankingDecisions(
        **vars(encoder),
        reranking=Reranking(
            labels=labels,
            pooling=_pooling(facts),
            activation=_activation(facts, flags, recipe, len(labels.value)),
            truncation=Decision("longest_first", "architecture", "as sentence-transformers cuts every pair"),
            token_types=_token_types(facts),
            template=_template(facts, flags, recipe),
            answers=answers,
        ),
    )


def vocabulary(facts: Facts) -> dict[str, int]:
    """The id of every token: from tokenizer.json, or vocab.json of a checkpoint that has only that."""
    tokenizer, vocab = (facts.transformer_folder / name for name in ("tokenizer.json", "vocab.json"))
    if not tokenizer.is_file():
        return dict(read_json(vocab))
    state = read_json(tokenizer)
    try:
        known = state["model"]["vocab"]
        ids = dict(known) if isinstance(known, dict) else {token: number for number, (token, _) in enumerate(known)}
        return ids | {token["content"]: token["id"] for token in state.get("added_tokens") or ()}
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFilesError(f"{tokenizer} has no vocabulary that can be read ({error!r})") from error


def _class(facts: Facts) -> str:
    """The class that config.json names."""
    names = facts.config.get("architectures") or [""]
    return str(names[0]) if isinstance(names, list) else ""


def _answers(facts: Facts, recipe: Recipe | None) -> Decision[tuple[str, ...]] | None:
    """Of a language model, the token whose logit is the score and the one whose logit is taken off; else None."""
    if facts.answers is None and _class(facts).endswith(CLASSIFIER):
        return None
    if facts.answers is not None:
        tokens = {number: token for token, number in vocabulary(facts).items()}
        if missing := [number for number in facts.answers if number not in tokens]:
            raise ModelFilesError(
                f"{facts.folder / 'modules.json'}: LogitScore names token {missing[0]}, which is none"
            )
        names = tuple(tokens[number] for number in facts.answers)
        return Decision(names, "file", "modules.json: LogitScore")
    if recipe and recipe.answers:
        return _from_recipe(recipe, recipe.answers)
    raise ModelFilesError(
        f"{facts.transformer_folder / 'config.json'}: architectures names {_class(facts) or 'no class'}, not a "
        f"...{CLASSIFIER}: it has no head that scores pairs. A language model that answers yes or no needs its "
        "recipe (--recipe NAME), which says what it is asked"
    )


def _labels(facts: Facts, answers: Decision[tuple[str, ...]] | None) -> Decision[tuple[str, ...]]:
    """The names of the logits, in their order."""
    if answers is not None:
        return Decision((answers.value[0],), answers.origin, answers.reason)
    file, names, count = facts.transformer_folder / "config.json", facts.config.get("id2label"), _label_count(facts)
    if names is None and count is None:
        return Decision(_numbered(2), "architecture", "transformers' default is two labels")
    if names is None:
        return Decision(_numbered(count or 0), "file", "config.json: num_labels")
    if not isinstance(names, Mapping) or sorted(names, key=str) != sorted(map(str, range(len(names)))):
        raise ModelFilesError(f"{file}: id2label is {names!r}, not a name for each number from 0")
    if count is not None and count != len(names):
        raise ModelFilesError(f"{file}: num_labels is {count}, but id2label has {len(names)}")
    return Decision(tuple(str(names[str(number)]) for number in range(len(names))), "file", "config.json: id2label")


def _label_count(facts: Facts) -> int | None:
    for key in ("num_labels", "_num_labels"):
        count = facts.config.get(key)
        if count is not None:
            if type(count) is not int or count < 1:
                raise ModelFilesError(f"{facts.transformer_folder / 'config.json'}: {key} is {count!r}, not a number")
            return count
    return None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(count))


def _pooling(facts: Facts) -> Decision[HeadPooling]:
    """What the head reads."""
    if MODEL_TYPES[facts.model_type].decoder:
        return Decision("lasttoken", "architecture", f"{facts.model_type} is a decoder")
    if facts.model_type not in HEAD_POOLING_KEYS:
        return Decision("cls", "architecture", f"the head of {facts.model_type} reads the first token")
    key, default, meanings = HEAD_POOLING_KEYS[facts.model_type]
    value = facts.config.get(key)
    if value is None:
        return Decision(meanings[default], "architecture", f"the default of {facts.model_type} is {default}")
    if value not in meanings:
        file = facts.transformer_folder / "config.json"
        raise UnsupportedError(f"{file}: {key} is {value!r}, not one of {', '.join(meanings)}")
    return Decision(meanings[value], "file", f"config.json: {key} is {value}")


def _activation(facts: Facts, flags: Flags, recipe: Recipe | None, labels: int) -> Decision[ScoreActivation]:
    """What makes scores of logits, in the order in which sentence-transformers asks."""
    if flags.activation is not None:
        return Decision(flags.activation, "flag", "--activation")
    own = facts.config.get("sentence_transformers")
    for name, file, key in (
        (facts.activation_fn, facts.folder / "config_sentence_transformers.json", "activation_fn"),
        (
            own.get("activation_fn") if isinstance(own, Mapping) else None,
            facts.transformer_folder / "config.json",
            "sentence_transformers.activation_fn",
        ),
        (
            facts.config.get("sbert_ce_default_activation_function"),
            facts.transformer_folder / "config.json",
            "sbert_ce_default_activation_function",
        ),
    ):
        if name is not None:
            return Decision(_known_activation(name, file, key), "file", f"{file.name}: {key}")
    if recipe and recipe.activation:
        return _from_recipe(recipe, recipe.activation)
    if labels == 1:
        return Decision("sigmoid", "architecture", "sentence-transformers' default for one label")
    return Decision("identity", "architecture", "sentence-transformers' default for several labels")


def _known_activation(name: Any, file: Path, key: str) -> ScoreActivation:
    known: dict[str, Any] = {**DENSE_ACTIVATIONS, **SHORT_ACTIVATIONS}
    if not isinstance(name, str) or name not in known:
        raise UnsupportedError(f"{file}: {key} is {name!r}; known: {', '.join(known)}; --activation chooses another")
    found: ScoreActivation = known[name]
    return found


def _token_types(facts: Facts) -> Decision[bool]:
    """Whether the document's tokens are segment 1, where the tokenizer makes it so and the model takes segments."""
    names = facts.tokenizer_config.get("model_input_names")
    if isinstance(names, list):
        reason = f"tokenizer_config.json: model_input_names is {json.dumps(names)}"
        return Decision("token_type_ids" in names, "file", reason)
    return Decision(True, "architecture", "as tokenizer.json sets them")


def _template(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[Template] | None:
    """The template of a recipe, where there is one; a chat template in the files without one is an error.

    sentence-transformers would put every pair into it, and it is a program, which onnxembed does not run.
    """
    if flags.plain_pairs:
        return None
    if recipe and recipe.template:
        return _from_recipe(recipe, recipe.template)
    folder = facts.transformer_folder
    files = [folder / name for name in ("chat_template.jinja", "chat_template.json")]
    found = [file.name for file in files if file.is_file()]
    found += ["tokenizer_config.json: chat_template"] * (facts.tokenizer_config.get("chat_template") is not None)
    if found:
        raise ModelFilesError(
            f"{folder} has a chat template ({found[0]}), which onnxembed does not run: name the recipe that says what "
            "a pair becomes (--recipe NAME), or pass --plain-pairs for a model that reads the two as they are"
        )
    return None


def _from_recipe(recipe: Recipe, said: Said[Any]) -> Decision[Any]:
    return Decision(said.value, "recipe", f"{recipe.file}: {said.reason}")
