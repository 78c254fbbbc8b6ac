"""text-embeddings-inference, with what it lacks: models by name, kinds of texts, sparse and token vectors together."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from onnxembed.manifest import TextKind, TruncationSide

Direction = Literal["left", "right", "Left", "Right"]
Ids = list[int]
Inputs = str | list[str | int | Ids]
"""A text, texts, the token ids of one text, or of several; texts and ids may be mixed."""
Positive = Annotated[int, Meta(ge=1)]
Vector = list[float]


class Asked(Struct, kw_only=True):
    """Fields of every request about texts."""

    truncate: bool | None = None
    """Whether to cut texts that are too long; the server's own choice if null."""
    truncation_direction: Direction | None = None
    """The side on which they are cut; the model's own if null."""
    model: str | None = None
    """The name of one of the served models."""

    @property
    def side(self) -> TruncationSide | None:
        """The direction in one spelling."""
        return {"l": "left", "r": "right"}[self.truncation_direction[0].lower()] if self.truncation_direction else None  # type: ignore[return-value]


class TextsAsked(Asked, kw_only=True):
    """Texts to compute something of."""

    inputs: Inputs
    prompt_name: str | None = None
    """The model's prompt to put before every text."""
    input_type: TextKind | None = None
    """What the texts are; chooses the prompt, and how a multi-vector model treats them."""


class EmbedAsked(TextsAsked, kw_only=True):
    """POST /embed."""

    normalize: bool = True
    """Whether vectors are scaled to length 1; false leaves them as the model makes them."""
    dimensions: Positive | None = None
    """How many numbers of each vector to keep."""
    encoding_format: Literal["float"] | None = None


class KindsAsked(TextsAsked, kw_only=True):
    """POST /embed_kinds."""

    kinds: list[Literal["dense", "sparse", "multi_vector"]] | None = None
    """The kinds of embeddings to answer with; all that the model makes if null."""


class SparseValue(Struct):
    """The weight of one id of the vocabulary."""

    index: int
    value: float


class Kinds(Struct, omit_defaults=True):
    """Several kinds of embeddings of each text."""

    dense: list[Vector] | None = None
    sparse: list[list[SparseValue]] | None = None
    multi_vector: list[list[Vector]] | None = None


class RerankAsked(Asked, kw_only=True):
    """POST /rerank."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class Rank(Struct, omit_defaults=True):
    """A text's place among those that were reranked, and its score."""

    index: int
    score: float
    text: str | None = None


class PredictAsked(Asked, kw_only=True):
    """POST /predict: a pair of texts, or several."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False


class Prediction(Struct):
    """The score of a label."""

    score: float
    label: str


class SimilarityInputs(Struct):
    """A sentence, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Struct):
    """Options of a comparison, as those of /embed."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None


class SimilarityAsked(Struct):
    """POST /similarity."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = None


class TokenizeAsked(Struct):
    """POST /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class Token(Struct):
    """A token; special ones stand nowhere in the text. Places are counted in characters."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class DecodeAsked(Struct):
    """POST /decode."""

    ids: list[int | Ids]
    skip_special_tokens: bool = True
    model: str | None = None
