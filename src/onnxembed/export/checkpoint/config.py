"""config.json, read so that no key that could change the computation goes unnoticed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self, TypeVar

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import Facts

ConfigValue = TypeVar("ConfigValue")

# Keys that do not change the hidden states of an inference pass: those for training, generation, task heads and
# bookkeeping, attributes that transformers, unsloth or other tools write, or once wrote, into every config.json, the
# width of a table of embeddings, whose shape says it too (`emb_size`), and (in the last line) how model2vec made its
# table of vectors.
HARMLESS_KEYS = frozenset(
    """
    _attn_implementation_autoset _commit_hash _flash_attn_2_enabled _name_or_path _num_labels architectures
    attention_dropout attention_probs_dropout_prob attn_implementation auto_map bad_words_ids begin_suppress_tokens
    bos_token_id cache_implementation chunk_size_feed_forward classifier_dropout cls_token_id
    cross_attention_hidden_size decoder_start_token_id directionality diversity_penalty do_sample dropout dtype
    early_stopping emb_size embedding_dropout encoder_no_repeat_ngram_size eos_token_id eos_token_ids
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing
    hidden_dropout hidden_dropout_prob id2label initializer_range label2id language layerdrop length_penalty
    mask_token_id max_length min_length model_max_length n_classes neftune_noise_alpha no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_past
    output_scores pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    problem_type qa_dropout remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sbert_ce_default_activation_function sentence_transformers sep_token_id seq_classif_dropout sinusoidal_pos_embds
    summary_activation summary_last_dropout summary_type summary_use_proj suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_weights_ tie_word_embeddings tokenizer_class top_k top_p
    torch_dtype torchscript transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
    unsloth_version use_bfloat16 use_cache use_flash_attention_2 use_flash_attn xla_device
    apply_pca apply_zipf embedding_dtype seq_length sif_coefficient tokenizer_name vocabulary_quantization
    """.split()  # noqa: SIM905  (a word list)
)

# Keys that any config.json may have, and that change nothing as long as they have this value.
NEUTRAL_VALUES: dict[str, object] = {
    "adapters": {"adapters": {}, "config_map": {}, "fusion_config_map": {}, "fusions": {}},  # the adapters library's
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "prefix": None,
    "pruned_heads": {},
    "quantization_config": None,
    "use_mrope": False,
    # The first ALBERT's, which transformers' class has never read.
    "down_scale_factor": 1,
    "gap_size": 0,
    "net_structure_type": 0,
    "num_memory_blocks": 0,
    # TinyBERT's, of the code that distilled it.
    "cell": {},
    "pre_trained": "",
    "structure": [],
    "training": "",
}


# Keys that say how many layers there are, and how wide something in a layer is.
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_hidden_groups")
WIDTHS = ("head_dim", "hidden_size", "intermediate_size", "embedding_size", "dim", "hidden_dim", "n_embd", "n_inner")


class Config:
    """config.json as an architecture reads it: every key is taken, expected, or known to be harmless.

    `where` names the file in error messages.
    """

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """The config of a checkpoint."""
        return cls(facts.config, str(facts.config_file))

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where
        self._taken: set[str] = set()

    def take(self, key: str, value_type: type[ConfigValue], default: ConfigValue | None = None) -> ConfigValue:
        """The value of `key`, of the given type; `default` is the architecture's own default.

        Raises ModelFilesError for a value of another type, or for neither a value nor a default.
        """
        self._taken.add(key)
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelFilesError(f"{self._where} has no {key}")
        if value_type is float and type(value) is int:
            value = float(value)
        if not isinstance(value, value_type) or (isinstance(value, bool) and value_type is not bool):
            raise ModelFilesError(f"{self._where}: {key} is {value!r}, not a {value_type.__name__}")
        if isinstance(value, int) and key.endswith("heads") and value < 1:
            raise ModelFilesError(f"{self._where}: {key} is {value}, not a number of heads")
        return value

    def take_nullable(self, key: str, value_type: type[ConfigValue], default: ConfigValue) -> ConfigValue | None:
        """Like `take`, for a key where null means something else than its absence."""
        value = self.take(key, value_type, default)
        return None if self._values.get(key, default) is None else value

    def has(self, key: str) -> bool:
        """Whether the config gives `key` a value."""
        return self._values.get(key) is not None

    def ignore(self, *keys: str) -> None:
        """Accept any value of keys that do not change what this architecture's reference computes."""
        self._taken.update(keys)

    def rename(self, **names: str) -> None:
        """Read each key as its later name; a config with both must give them the same value."""
        for old, new in names.items():
            self._taken.add(old)
            if not self.has(old):
                continue
            value, later = self._values[old], self._values.get(new)
            if later not in (None, value):
                raise ModelFilesError(f"{self._where}: {old} is {value!r}, but {new}, its later name, {later!r}")
            self._values = {**self._values, new: value}

    def expect(self, key: str, expected: object) -> None:
        """Refuse a model whose config sets `key` to something other than what the builder computes."""
        self._taken.add(key)
        value = self._values.get(key, expected)
        if value != expected:
            raise UnsupportedError(f"{self._where} sets {key} to {value!r}; onnxembed builds {expected!r} only")

    def confirm_shape(self, tensor: str, shape: tuple[int, ...], *keys: str) -> None:
        """Refuse a model whose tensor has another shape than the one that these keys give."""
        expected = tuple(self.take(key, int) for key in keys)
        if shape != expected:
            raise ModelFilesError(
                f"{self._where}: {', '.join(keys)} say {expected}, but {tensor} has the shape {shape}"
            )

    def check_claims(self, tensors: int, numbers: int) -> None:
        """Refuse sizes that the weights cannot have, before anything of such a size is made.

        `tensors`: how many the checkpoint has; `numbers`: how many its largest tensor holds.
        """
        for keys, limit, what in ((LAYER_COUNTS, tensors, "tensors"), (WIDTHS, numbers, "numbers in one tensor")):
            for key in keys:
                value = self._values.get(key)
                if isinstance(value, int) and value > limit:
                    raise ModelFilesError(f"{self._where}: {key} is {value}, but the weights have {limit} {what}")

    def finish(self, ignored: Collection[str] = ()) -> None:
        """Refuse keys that nothing has read, unless the caller vouches for them with `ignored`."""
        for key, value in NEUTRAL_VALUES.items():
            self.expect(key, value)
        unknown = sorted(self._values.keys() - self._taken - HARMLESS_KEYS - {"model_type"} - set(ignored))
        if unknown:
            raise UnsupportedError(
                f"{self._where} has keys that onnxembed does not know: {', '.join(unknown)}; if they do not change "
                f"the computation, pass --ignore-config-key {unknown[0]} (once for each key)"
            )
