"""Every error onnxembed raises on purpose; each message names the cause and the fix.

OnnxEmbedError
├── UsageError               the caller asked for something that cannot be (also a ValueError)
│   ├── TokenRowError        a text has a token that the model's table has no row for
│   ├── UnsupportedError     a model, option or precision that onnxembed does not do
│   └── MissingExtraError    an optional dependency is not installed (also an ImportError)
├── ModelFilesError          a model's files are missing, contradict each other, or say too little
│   ├── UnsaidError          neither files nor recipe state a decision; a flag can make it
│   ├── NotAnArtifactError   a model has neither a manifest nor an ONNX graph
│   ├── ManifestError        onnxembed.json cannot be read, or is of a format this version does not know
│   └── IntegrityError       a file is not the file its hash or size says it is
├── RecipeError              a file of the recipe book is not a recipe
├── HubError                 the hub could not be asked, or said no
│   └── NetworkError         the network or the hub failed; the same request may succeed later
├── ProviderError            an execution provider was asked for and cannot be used
│   └── DeviceMemoryError    a run does not fit into the memory that there is
├── ProofError               a graph does not give the model's vectors on this machine
└── VerificationError        the artifact's vectors are not the reference's
    └── NoReferenceError     there is no reference to compare them with
"""

from __future__ import annotations

import re

LONGEST_WORD, SHOWN = 500, 100
"""A word of a message that is longer than the first number is shown up to the second. Paths are shorter."""

LONGEST_MESSAGE = 4000
"""The characters of a message; what names more than a screen of things names the first of them."""


class OnnxEmbedError(Exception):
    """Base of every error that onnxembed raises on purpose. What a message takes from a file is cut to a length."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


def shortened(message: str) -> str:
    """A message in which long words, and its end, are replaced by how long they are."""
    words = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _cut(word[0], SHOWN), message)
    return _cut(words, LONGEST_MESSAGE) if len(words) > LONGEST_MESSAGE else words


def _cut(text: str, length: int) -> str:
    return f"{text[:length]}... ({len(text)} characters)"


class UsageError(OnnxEmbedError, ValueError):
    """The caller asked for something that cannot be: a bad text, an unknown option, an impossible value."""


class TokenRowError(UsageError):
    """A text has a token that the model's table has no row for."""

    token_id: int
    """The id of the token."""

    @classmethod
    def of(cls, token_id: int, token: str | None = None) -> TokenRowError:
        """The error for a token with this id, which the tokenizer calls `token`."""
        named = "" if token is None else f" {token!r}"
        error = cls(f"a text has the token{named} with id {token_id}, for which the model's table has no row")
        error.token_id = token_id
        return error


class UnsupportedError(UsageError):
    """A model, option or precision that onnxembed does not do."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed; the message names the pip command."""


class ModelFilesError(OnnxEmbedError):
    """A model's files are missing, contradict each other, or say too little."""


class UnsaidError(ModelFilesError):
    """Neither a model's files nor its recipe state a decision; `flag` names the option that makes it.

    A dry run looks for all such decisions, and joins their options with commas.
    """

    def __init__(self, message: str, flag: str = "") -> None:
        super().__init__(message)
        self.flag = flag


class NotAnArtifactError(ModelFilesError):
    """A model has neither a manifest nor an ONNX graph; a checkpoint can be exported."""


class ManifestError(ModelFilesError):
    """onnxembed.json cannot be read, or is of a format that this version does not know."""


class IntegrityError(ModelFilesError):
    """A file is not the file its recorded hash or size says it is; `file` is its path in the model's folder."""

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class RecipeError(OnnxEmbedError):
    """A file of the recipe book is not a recipe; the message says all that is wrong with it."""


class HubError(OnnxEmbedError):
    """The hub could not be asked, or said no."""


class NetworkError(HubError):
    """The network or the hub failed, not the request: the same request may succeed later."""


class ProviderError(OnnxEmbedError):
    """An execution provider was asked for and cannot be used."""


class DeviceMemoryError(ProviderError):
    """A run does not fit into the memory that there is; streams halve such a run, down to a single text."""


class ProofError(OnnxEmbedError):
    """A graph does not give the model's results on this machine; the message has what was measured and the cure."""


class VerificationError(OnnxEmbedError):
    """The artifact's vectors differ from the reference's by more than the tolerance."""


class NoReferenceError(VerificationError):
    """transformers has no class of its own that computes the model, so there is nothing to compare with."""
