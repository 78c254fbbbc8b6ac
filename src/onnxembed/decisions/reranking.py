"""Facts + recipe + flags -> how a pair of texts becomes a score. Standard library only.

The rules are those of sentence-transformers' CrossEncoder, except that a template comes from a recipe: model files
hold it as a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.decisions.choose_task import CLASSIFIER, named_class
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, UnsupportedError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.modules import ACTIVATION_NAMES
from onnxembed.facts.token_ids import vocabulary
from onnxembed.facts.transformer import takes_messages
from onnxembed.manifest import SCORE_ACTIVATIONS, Decision, HeadPooling, Reranking, ScoreActivation, Template
from onnxembed.recipes.recipe import Recipe

# For heads whose pooling config.json decides: the key, its default, and what its values mean.
HEAD_POOLING_KEYS: dict[str, tuple[str, str, dict[str, HeadPooling]]] = {
    "modernbert": ("classifier_pooling", "cls", {"cls": "cls", "mean": "mean"}),
    "eurobert": ("classifier_pooling", "late", {"bos": "cls", "mean": "mean", "late": "mean_of_logits"}),
}

# The tokenizer classes of transformers 5 that give segments of their own accord, and the model_types that imply one of
# them where no file names a class. Other classes, the generic ones included, give none: all tokens are in segment 0.
SEGMENTED = frozenset(
    {"BertTokenizer", "ElectraTokenizer", "DebertaV2Tokenizer", "bert", "electra", "deberta-v2", "nomic_bert"}
)


def decide_reranking(facts: Facts, flags: Flags, recipe: Recipe | None) -> Reranking:
    """Decide how pairs become scores.

    Raises ModelFilesError if the files leave out or contradict something, UnsupportedError if onnxembed does not
    support what the model needs, UsageError for flags that do not apply to rerankers.
    """
    if flags.pooling is not None or flags.normalize is not None:
        raise UsageError(
            f"{facts.folder} is a reranker, and --pooling and --normalize are for embeddings; "
            "--task embedding makes it an embedding model, without its head"
        )
    if prompts := [name for name, text in facts.prompts.items() if text]:
        file = facts.folder / "config_sentence_transformers.json"
        raise UnsupportedError(f"{file} has prompts ({', '.join(prompts)}), which onnxembed does not put before pairs")
    answers = _answers(facts, recipe)
    labels = _labels(facts, answers)
    return Reranking(
        labels=labels,
        pooling=_pooling(facts),
        activation=_activation(facts, flags, recipe, len(labels.value)),
        truncation=Decision.default("longest_first", "as sentence-transformers cuts every pair"),
        token_types=_token_types(facts),
        template=_template(facts, flags, recipe),
        answers=answers,
    )


def _answers(facts: Facts, recipe: Recipe | None) -> Decision[tuple[str, ...]] | None:
    """For a language model: the token whose logit is the score, and the one whose logit is subtracted; else None."""
    if facts.answers is None and named_class(facts).endswith(CLASSIFIER):
        return None
    if facts.answers is not None:
        tokens = {number: token for token, number in vocabulary(facts).items()}
        if missing := [number for number in facts.answers if number not in tokens]:
            raise ModelFilesError(
                f"{facts.folder / 'modules.json'}: LogitScore names token {missing[0]}, which is not in the vocabulary"
            )
        names = tuple(tokens[number] for number in facts.answers)
        return Decision.from_file(names, "modules.json", "LogitScore")
    if recipe and recipe.answers:
        return recipe.decision(recipe.answers)
    raise ModelFilesError(
        f"{facts.config_file}: architectures names {named_class(facts) or 'no class'}, not a "
        f"...{CLASSIFIER}: it has no head that scores pairs. A language model that answers yes or no needs its "
        "recipe (--recipe NAME), which says what it is asked"
    )


def _labels(facts: Facts, answers: Decision[tuple[str, ...]] | None) -> Decision[tuple[str, ...]]:
    """The names of the logits, in their order."""
    if answers is not None:
        return Decision((answers.value[0],), answers.origin, answers.reason)
    file, names, count = facts.config_file, facts.config.get("id2label"), _label_count(facts)
    if names is None and count is None:
        return Decision.default(_numbered(2), "transformers' default is two labels")
    if names is None:
        return Decision.from_file(_numbered(count or 0), "config.json", "num_labels")
    if not isinstance(names, Mapping) or sorted(names, key=str) != sorted(map(str, range(len(names)))):
        raise ModelFilesError(f"{file}: id2label is {names!r}, not a name for each number from 0")
    if count is not None and count != len(names):
        raise ModelFilesError(f"{file}: num_labels is {count}, but id2label has {len(names)}")
    return Decision.from_file(tuple(str(names[str(number)]) for number in range(len(names))), "config.json", "id2label")


def _label_count(facts: Facts) -> int | None:
    for key in ("num_labels", "_num_labels"):
        count = facts.config.get(key)
        if count is not None:
            if type(count) is not int or count < 1:
                raise ModelFilesError(f"{facts.config_file}: {key} is {count!r}, not a number")
            return count
    return None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(count))


def _pooling(facts: Facts) -> Decision[HeadPooling]:
    """What the head reads of the token embeddings."""
    if MODEL_TYPES[facts.model_type].decoder:
        return Decision.default("lasttoken", f"{facts.model_type} is a decoder")
    if facts.model_type not in HEAD_POOLING_KEYS:
        return Decision.default("cls", f"the head of {facts.model_type} reads the first token")
    key, default, meanings = HEAD_POOLING_KEYS[facts.model_type]
    value = facts.config.get(key)
    if value is None:
        return Decision.default(meanings[default], f"the default of {facts.model_type} is {default}")
    if value not in meanings:
        file = facts.config_file
        raise UnsupportedError(f"{file}: {key} is {value!r}, not one of {', '.join(meanings)}")
    return Decision.from_file(meanings[value], "config.json", f"{key} is {value}")


def _activation(facts: Facts, flags: Flags, recipe: Recipe | None, labels: int) -> Decision[ScoreActivation]:
    """The activation that turns logits into scores, looked up in the order of sentence-transformers."""
    if flags.activation is not None:
        return Decision(flags.activation, "flag", "--activation")
    own = facts.config.get("sentence_transformers")
    for name, file, key in (
        (facts.activation_fn, facts.folder / "config_sentence_transformers.json", "activation_fn"),
        (
            own.get("activation_fn") if isinstance(own, Mapping) else None,
            facts.config_file,
            "sentence_transformers.activation_fn",
        ),
        (
            facts.config.get("sbert_ce_default_activation_function"),
            facts.config_file,
            "sbert_ce_default_activation_function",
        ),
    ):
        if name is not None:
            return Decision(_known_activation(name, file, key), "file", f"{file.name}: {key}")
    if recipe and recipe.activation:
        return recipe.decision(recipe.activation)
    if labels == 1:
        return Decision.default("sigmoid", "sentence-transformers' default for one label")
    return Decision.default("identity", "sentence-transformers' default for several labels")


def _known_activation(name: Any, file: Path, key: str) -> ScoreActivation:
    activations: dict[str, Any] = {
        name: activation for name, activation in ACTIVATION_NAMES.items() if activation in SCORE_ACTIVATIONS
    }
    if not isinstance(name, str) or name not in activations:
        raise UnsupportedError(
            f"{file}: {key} is {name!r}; known: {', '.join(activations)}; --activation chooses another"
        )
    activation: ScoreActivation = activations[name]
    return activation


def _token_types(facts: Facts) -> Decision[bool]:
    """Whether the document's tokens are in segment 1, if the tokenizer sets segments and the model takes them."""
    names = facts.tokenizer_config.get("model_input_names")
    if isinstance(names, list):
        reason = f"tokenizer_config.json: model_input_names is {json.dumps(names)}"
        return Decision("token_type_ids" in names, "file", reason)
    tokenizer_class = facts.tokenizer_config.get("tokenizer_class") or facts.config.get("tokenizer_class")
    named = str(tokenizer_class or facts.model_type)
    if named.removesuffix("Fast") in SEGMENTED:
        return Decision.default(True, f"as tokenizer.json sets them, and {named} gives them")
    return Decision.default(False, f"no model_input_names, and transformers 5 gives none for the tokenizer of {named}")


def _template(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[Template] | None:
    """The recipe's template, if it has one; without it, a chat template in the files is an error.

    sentence-transformers would apply it to every pair, but it is a program, which onnxembed does not run.
    """
    if flags.plain_pairs:
        return None
    if recipe and recipe.template:
        return recipe.decision(recipe.template)
    folder = facts.transformer_folder
    names = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    templates = [name for name in names if (folder / name).exists()]
    if facts.tokenizer_config.get("chat_template") is not None:
        templates.append("tokenizer_config.json: chat_template")
    if takes_messages(facts.transformer_config) and not facts.answers:
        templates.append(f"{facts.transformer_config_name}: modality_config has message")
    if templates:
        raise ModelFilesError(
            f"{folder} has a chat template ({templates[0]}), which onnxembed does not run: name the recipe that says "
            "what a pair becomes (--recipe NAME), or pass --plain-pairs for a model that reads the two as they are"
        )
    return None
