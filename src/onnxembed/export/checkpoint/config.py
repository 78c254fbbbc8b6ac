"""config.json, read so that no key that could change the computation goes unnoticed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self, TypeVar

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.bounds import check_bounds
from onnxembed.facts.facts import Facts
from onnxembed.facts.known.config import HARMLESS, NEUTRAL_VALUES

ConfigValue = TypeVar("ConfigValue")

# Keys that say how many layers there are, and how wide something in a layer is.
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "num_hidden_groups")
WIDTHS = ("head_dim", "hidden_size", "intermediate_size", "embedding_size", "dim", "hidden_dim", "n_embd", "n_inner")

KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
"""The types of values, as messages name them."""


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

        Raises ModelFilesError for a value of another type or out of its bounds, or for neither a value nor a default.
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
            raise ModelFilesError(f"{self._where}: {key} is {value!r}, not {KINDS[value_type]}")
        check_bounds(self._where, key, value)
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
        unknown = sorted(self._values.keys() - self._taken - HARMLESS.keys() - {"model_type"} - set(ignored))
        if experts := [key for key in unknown if "expert" in key or key.startswith("moe_")]:
            raise UnsupportedError(
                f"{self._where} is of a mixture of experts ({', '.join(experts)}), which onnxembed does not build"
            )
        if unknown:
            raise UnsupportedError(
                f"{self._where} has keys that onnxembed does not know: {', '.join(unknown)}; if they do not change "
                f"the computation, pass --ignore-config-key {unknown[0]} (once for each key)"
            )
