"""What is decided for every task: attention, length, padding, prompts. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from onnxembed.decisions.flags import NO_ADAPTER, Flags
from onnxembed.errors import ModelFilesError, UnsaidError, UnsupportedError, UsageError
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.json_file import JsonObject, read_json
from onnxembed.manifest import AttentionMode, Decision, Prompts, TruncationSide
from onnxembed.recipes.recipe import Recipe

UNBOUNDED = 1_000_000  # tokens: the limit for models without one
MODEL2VEC_LENGTH = 512  # tokens: model2vec's limit where config.json has none; null is no limit


@dataclass(frozen=True, kw_only=True)
class EncoderDecisions:
    """What the files, the architecture and the flags decide about token ids and token embeddings, for any task."""

    attention: Decision[AttentionMode]
    max_length: Decision[int]
    truncation_side: Decision[TruncationSide]
    pad_token_id: Decision[int]
    lower_case: Decision[bool]
    end_token: Decision[str] | None
    prompts: Prompts
    hidden_size: int
    adapter: Decision[str] | None = None


def decide_encoder(facts: Facts, flags: Flags, recipe: Recipe | None) -> EncoderDecisions:
    """Decide what does not depend on the task; errors as for `decide`."""
    _check_model_type(facts)
    hidden_size = _size(facts, MODEL_TYPES[facts.model_type].hidden_size_key)
    return EncoderDecisions(
        attention=_attention(facts, flags, recipe),
        max_length=_longest(_max_length(facts, flags), facts, flags),
        truncation_side=_truncation_side(facts),
        pad_token_id=_pad_token_id(facts),
        lower_case=_lower_case(facts),
        end_token=end_token(facts, recipe),
        prompts=_prompts(facts, recipe),
        hidden_size=hidden_size,
        adapter=_adapter(facts, flags),
    )


def _check_model_type(facts: Facts) -> None:
    if facts.model_type not in MODEL_TYPES:
        raise UnsupportedError(
            f"{facts.folder}: config.json's model_type is {facts.model_type!r}, which onnxembed does not know; "
            f"known: {', '.join(MODEL_TYPES)}"
        )


def _attention(facts: Facts, flags: Flags, recipe: Recipe | None) -> Decision[AttentionMode]:
    """A decoder's attention: the flag, else the recipe, else config.json, else its own default.

    The two keys of config.json are those that transformers (>= 5.2) honors without remote code.
    """
    defaults = MODEL_TYPES[facts.model_type]
    if not defaults.decoder:
        if flags.attention not in (None, defaults.attention):
            raise UsageError(f"--attention {flags.attention}: {facts.model_type} is an encoder, always bidirectional")
        return Decision.default(defaults.attention, f"{facts.model_type} is an encoder")
    if flags.attention is not None:
        return Decision(flags.attention, "flag", "--attention")
    if recipe and recipe.attention:
        return recipe.decision(recipe.attention)
    file = facts.config_file
    for key, causal in (("is_causal", True), ("use_bidirectional_attention", False)):
        value = facts.config.get(key)
        if isinstance(value, bool):
            mode: AttentionMode = "causal" if value is causal else "bidirectional"
            # The reverse is not a contradiction: transformers writes false by default.
            if mode == "causal" and facts.config.get("use_bidirectional_attention") is True:
                raise ModelFilesError(
                    f"{file}: is_causal and use_bidirectional_attention are both true; see --attention"
                )
            return Decision.from_file(mode, "config.json", f"{key} is {str(value).lower()}")
        if value is not None:
            raise ModelFilesError(f"{file}: {key} is {value!r}, not true or false")
    if (code := _own_model_code(facts)) is not None:
        raise UnsaidError(
            f"{file} names code of the model's own (auto_map: {code}), which is never run, and does not say whether "
            "its tokens see the ones after them (is_causal): pass --attention bidirectional or --attention causal, as "
            "the model card or that code says",
            "--attention",
        )
    return Decision.default(defaults.attention, f"{facts.model_type} is a decoder")


def _own_model_code(facts: Facts) -> str | None:
    """The class of the model that config.json's auto_map names; None where it names none."""
    auto_map = facts.config.get("auto_map")
    if not auto_map:
        return None
    if not isinstance(auto_map, dict):
        raise ModelFilesError(f"{facts.config_file}: auto_map is {auto_map!r}, not classes by name")
    return next((str(name) for key, name in auto_map.items() if key.startswith("AutoModel")), None)


def _adapter(facts: Facts, flags: Flags) -> Decision[str] | None:
    """The task whose adapter is merged into the weights. No file names it: such models take a task with every text."""
    tasks, asked = facts.adapters, flags.adapter
    if (lora := facts.lora) is not None:
        if asked is not None:
            raise UsageError(f"--adapter {asked}: {facts.folder} has one adapter, which is merged into {lora.base}")
        root = "sqrt(r)" if lora.rslora else "r"
        reason = f"merged into {lora.base}, scaled by lora_alpha {lora.alpha:g} / {root}, r = {lora.rank}"
        reason += ", each row with the length that DoRA trained" if lora.dora else ""
        return Decision("LoRA", "file", f"adapter_config.json: {reason}")
    if not tasks and asked is not None:
        raise UsageError(f"--adapter {asked}: {facts.folder} has no adapters")
    if not tasks:
        return None
    if asked is None:
        raise UnsaidError(
            f"{facts.folder} has adapters for several tasks; choose one with --adapter: {', '.join(tasks)}, "
            f"or {NO_ADAPTER} for the model without them",
            "--adapter",
        )
    if asked not in (*tasks, NO_ADAPTER):
        raise UsageError(f"--adapter {asked!r} is not one of {', '.join(tasks)}, or {NO_ADAPTER}")
    return Decision(asked, "flag", "--adapter")


def _max_length(facts: Facts, flags: Flags) -> Decision[int]:
    """sentence-transformers' max_seq_length wins over the tokenizer's; the position table bounds both.

    Rotary positions have no table: there max_position_embeddings bounds only the tokenizer's length, as in
    sentence-transformers, which uses max_seq_length unchanged.
    """
    limit, table = _position_limit(facts), MODEL_TYPES[facts.model_type].has_position_table(facts.config)
    if flags.max_length is not None:
        if flags.max_length < 1 or (table and flags.max_length > limit):
            takes = f"takes 1 to {limit} tokens" if table else "takes 1 token or more"
            raise UsageError(f"--max-length {flags.max_length}: this model {takes}")
        return Decision(flags.max_length, "flag", "--max-length")
    if MODEL_TYPES[facts.model_type].static:
        return _static_length(facts)
    # The tokenizer's older name counts only where the newer one is absent, as opposed to null.
    older = "model_max_length" if "model_max_length" in facts.tokenizer_config else "max_len"
    for config, name, key in (
        (facts.transformer_config, facts.transformer_config_name, "max_seq_length"),
        (facts.tokenizer_config, "tokenizer_config.json", older),
    ):
        length = config.get(key)
        if length is None:
            continue
        if not _is_length(length):
            raise ModelFilesError(f"{facts.transformer_folder / name}: {key} is {length!r}, not a number of tokens")
        if length <= limit or (key == "max_seq_length" and not table):
            return Decision.from_file(int(length), name, f"{key}")
        reason = f"config.json: max_position_embeddings allows {limit} ({name}: {key} says more)"
        return Decision(limit, "file", reason)
    return Decision.from_file(limit, "config.json", f"max_position_embeddings allows {limit}")


def _static_length(facts: Facts) -> Decision[int]:
    """model2vec's max_length, which has a default; sentence-transformers cuts as tokenizer.json says.

    Reference: model2vec 0.10, model.py; sentence-transformers 6.2, modules/static_embedding.py.
    """
    if facts.model_type == "model2vec":
        name, key, length = "config.json", "max_length", facts.config.get("max_length", MODEL2VEC_LENGTH)
        if key not in facts.config:
            return Decision.default(MODEL2VEC_LENGTH, "model2vec's default (config.json has no max_length)")
    else:
        name, key = "tokenizer.json", "truncation.max_length"
        length = _stored_truncation(facts).get("max_length")
    if length is None:
        return Decision.default(UNBOUNDED, f"no positions bound its texts ({name} has no {key})")
    if not _is_length(length):
        raise ModelFilesError(f"{facts.transformer_folder / name}: {key} is {length!r}, not a number of tokens")
    return Decision.from_file(int(length), name, key)


def _stored_truncation(facts: Facts) -> JsonObject:
    """How tokenizer.json cuts texts, if it does."""
    file = facts.transformer_folder / "tokenizer.json"
    stored = read_json(file).get("truncation") or {}
    if not isinstance(stored, dict):
        raise ModelFilesError(f"{file}: truncation is {stored!r}, not an object")
    return stored


def _longest(limit: Decision[int], facts: Facts, flags: Flags) -> Decision[int]:
    """The limit of every text; for a multi-vector model, the longer of its query and document limits."""
    multi_vector = facts.multi_vector
    if multi_vector is None or limit.origin == "flag" or flags.task not in (None, "multi_vector"):
        return limit
    lengths = [
        limit if length.value is None else Decision(length.value, length.origin, length.reason)
        for length in (multi_vector.query_length, multi_vector.document_length)
    ]
    longest = max(lengths, key=lambda length: length.value)
    positions = _position_limit(facts)
    if MODEL_TYPES[facts.model_type].has_position_table(facts.config) and longest.value > positions:
        raise ModelFilesError(f"{facts.folder}: {longest.reason} is {longest.value}, but the model takes {positions}")
    return longest


def _position_limit(facts: Facts) -> int:
    """The number of tokens that the model was made for, or that its position table has rows for."""
    if MODEL_TYPES[facts.model_type].static:
        return UNBOUNDED
    positions = _size(facts, "max_position_embeddings")
    reserved = _pad_token_id(facts).value + 1 if MODEL_TYPES[facts.model_type].positions_after_pad else 0
    if positions <= reserved:
        raise ModelFilesError(
            f"{facts.config_file}: max_position_embeddings is {positions}, and "
            f"{facts.model_type} reserves {reserved} of them"
        )
    return positions - reserved


def _size(facts: Facts, key: str) -> int:
    """A size that config.json must state."""
    value = facts.config.get(key)
    if value is None:
        value = facts.config.get(MODEL_TYPES[facts.model_type].older_keys.get(key, key))
    if type(value) is not int or value < 1:
        raise ModelFilesError(f"{facts.config_file}: {key} is {value!r}, not a size")
    return value


def _is_length(value: Any) -> bool:
    """Whether a JSON value is a number of tokens; tokenizers without a limit say 1e30."""
    return type(value) in (int, float) and value >= 1 and value % 1 == 0


def _truncation_side(facts: Facts) -> Decision[TruncationSide]:
    name, key, side = "tokenizer_config.json", "truncation_side", facts.tokenizer_config.get("truncation_side")
    if facts.model_type == "static_embedding":
        name, key, side = "tokenizer.json", "truncation.direction", _stored_truncation(facts).get("direction")
        side = str(side).lower() if side else None
    if side is None:
        return Decision.default("right", "tokenizers cut at the end unless the files say otherwise")
    if side not in ("left", "right"):
        raise ModelFilesError(f"{facts.transformer_folder / name}: {key} is {side!r}, not left or right")
    return Decision.from_file(cast(TruncationSide, side), name, key)


def _pad_token_id(facts: Facts) -> Decision[int]:
    """The id that fills unused slots: the model's own, because RoBERTa derives positions from it."""
    pad = facts.config.get("pad_token_id")
    if pad is None:
        return Decision.default(MODEL_TYPES[facts.model_type].pad_token_id, f"the default of {facts.model_type}")
    vocabulary = _size(facts, "vocab_size")
    if type(pad) is int and -vocabulary <= pad < 0 and not MODEL_TYPES[facts.model_type].positions_after_pad:
        pad += vocabulary  # as torch counts rows
    if type(pad) is not int or not 0 <= pad < vocabulary:
        raise ModelFilesError(f"{facts.config_file}: pad_token_id is {pad!r}, not an id below {vocabulary}")
    return Decision.from_file(pad, "config.json", "pad_token_id")


def _lower_case(facts: Facts) -> Decision[bool]:
    value = facts.transformer_config.get("do_lower_case")
    if value is None:
        return Decision.default(False, "the tokenizer decides about case")
    file = facts.transformer_config_name
    if not isinstance(value, bool):
        raise ModelFilesError(f"{facts.transformer_folder / file}: do_lower_case is {value!r}, not true or false")
    return Decision.from_file(value, file, "do_lower_case")


def end_token(facts: Facts, recipe: Recipe | None) -> Decision[str] | None:
    """The token that every text must end with, if any; tokenizer.json may add it already."""
    if recipe and recipe.end_token:
        return recipe.decision(recipe.end_token)
    if facts.tokenizer_config.get("add_eos_token") is not True:
        return None
    token = facts.tokenizer_config.get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        file = facts.transformer_folder / "tokenizer_config.json"
        raise ModelFilesError(f"{file}: add_eos_token is true, but eos_token is {token!r}, not a token")
    return Decision.from_file(token, "tokenizer_config.json", "add_eos_token")


def _prompts(facts: Facts, recipe: Recipe | None) -> Prompts:
    name = "config_sentence_transformers.json"
    reason = f"{name}: prompts" if facts.prompts else f"{name} names no prompts"
    texts: Decision[dict[str, str]] = Decision(dict(facts.prompts), "file", reason)
    if recipe and recipe.prompts:
        # An empty text says nothing: sentence-transformers writes "query": "" and "document": "" into the
        # files of every model it saves.
        missing = {key: text for key, text in recipe.prompts.value.items() if not facts.prompts.get(key)}
        if missing:
            reason = f"{recipe.file} says {', '.join(missing)}: {recipe.prompts.reason}"
            texts = Decision({**facts.prompts, **missing}, "recipe", reason)
    default_reason = f"{name}: default_prompt_name" if facts.default_prompt_name else f"{name} names no default"
    return Prompts(texts=texts, default=Decision(facts.default_prompt_name, "file", default_reason))
