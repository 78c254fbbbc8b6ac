"""A recipe: what the files of one published model do not say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from onnxembed.errors import UnsupportedError
from onnxembed.manifest import (
    TASKS,
    AttentionMode,
    Decision,
    PoolingMode,
    Precision,
    ScoreActivation,
    Task,
    Template,
    template_flaws,
)

T = TypeVar("T")


CHECKED, UNCHECKED = "files:", "unchecked:"
"""How `Recipe.checked` begins."""


@dataclass(frozen=True)
class RecipeFact(Generic[T]):
    """A fact that the model's files leave out, with its reason and its source."""

    value: T
    reason: str
    source: str


@dataclass(frozen=True)
class Refusal:
    """A precision that is not built, because it would damage the model's vectors."""

    precision: Precision
    reason: str
    source: str


@dataclass(frozen=True)
class Golden:
    """Published numbers: a row of `values` for each text, and the tolerance.

    One tolerance is set: `atol` absolute, `rtol` as a share of the value, or `min_cosine`, which compares
    only the direction of a row, for vectors that were published before they were scaled.
    """

    values: tuple[tuple[float, ...], ...]
    source: str
    atol: float | None = None
    rtol: float | None = None
    min_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class GoldenVectors(Golden):
    """The first numbers of the vector of each text, embedded without a prompt.

    `normalize` is set where they were published scaled to length 1, or not, whatever the model does.
    """

    texts: tuple[str, ...]
    normalize: bool | None = None


@dataclass(frozen=True, kw_only=True)
class GoldenSimilarities(Golden):
    """The score of each query with each document, times `scale`; each text after the prompt of its kind.

    `score` is the cosine of dense vectors, or a function of `onnxembed.similarity` on sparse embeddings or on the
    vectors of tokens.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    query_prompt: str = ""
    document_prompt: str = ""
    scale: float = 1.0
    score: Literal["cosine", "sparse_dot", "maxsim", "mean_maxsim"] = "cosine"


@dataclass(frozen=True, kw_only=True)
class GoldenScores(Golden):
    """The scores of each pair of a query and a document, one for each label; `raw` for logits."""

    pairs: tuple[tuple[str, str], ...]
    raw: bool


SCORED: dict[str, Task] = {
    "cosine": "embedding",
    "sparse_dot": "sparse",
    "maxsim": "multi_vector",
    "mean_maxsim": "multi_vector",
}
"""The task whose embeddings a score compares."""

OF_EMBEDDERS = ("attention", "pooling", "normalize", "prompts", "end_token")
"""The facts that are about embeddings."""


@dataclass(frozen=True)
class Recipe:
    """One published model.

    `checked` says how its facts were checked: "files: ..." against the model's own files, or "unchecked: ..."
    and where they come from. `end_token` is the token that every text must end with.
    """

    model: str
    checked: str
    attention: RecipeFact[AttentionMode] | None = None
    pooling: RecipeFact[tuple[PoolingMode, ...]] | None = None
    normalize: RecipeFact[bool] | None = None
    prompts: RecipeFact[dict[str, str]] | None = None
    end_token: RecipeFact[str] | None = None
    refused: tuple[Refusal, ...] = ()
    vectors: tuple[GoldenVectors, ...] = ()
    similarities: tuple[GoldenSimilarities, ...] = ()
    task: RecipeFact[Task] | None = None
    template: RecipeFact[Template] | None = None
    answers: RecipeFact[tuple[str, ...]] | None = None
    activation: RecipeFact[ScoreActivation] | None = None
    scores: tuple[GoldenScores, ...] = ()

    @property
    def name(self) -> str:
        """The hub id without its organization: the recipe's name, and its file's."""
        return self.model.rpartition("/")[2]

    @property
    def file(self) -> str:
        """The recipe's file in the book."""
        return f"{self.name}.toml"

    @property
    def is_checked(self) -> bool:
        """Whether its facts were checked against the model's own files."""
        return self.checked.startswith(CHECKED)

    @property
    def golden(self) -> tuple[GoldenVectors | GoldenSimilarities | GoldenScores, ...]:
        """All published numbers."""
        return (*self.vectors, *self.similarities, *self.scores)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the recipe shows: by its fact, else by its published numbers, else by facts of embedders.

        A model may do more: its own files say it.
        """
        if self.task:
            return (self.task.value,)
        shown = {
            *(SCORED[numbers.score] for numbers in self.similarities),
            *(["embedding"] if self.vectors else []),
            *(["reranking"] if self.scores else []),
        }
        of_embedders = any(getattr(self, field) for field in OF_EMBEDDERS)
        return tuple(task for task in TASKS if task in shown) or (("embedding",) if of_embedders else ())

    def refuse_precisions(self, precisions: Collection[str]) -> None:
        """Raise UnsupportedError for a precision that would damage the model's vectors."""
        for refusal in self.refused:
            if refusal.precision in precisions:
                hint = "; bf16, for CUDA, has the range of fp32" if refusal.precision == "fp16" else ""
                raise UnsupportedError(f"{self.model} cannot be run in {refusal.precision}: {refusal.reason}{hint}")

    def decision(self, fact: RecipeFact[T]) -> Decision[T]:
        """The decision that follows from one of its facts."""
        return Decision(fact.value, "recipe", f"{self.file}: {fact.reason}")


def contradictions(recipe: Recipe, path: Path) -> Iterator[str]:
    """The problems of a recipe that its types cannot express."""
    if recipe.model.count("/") != 1 or recipe.file != path.name:
        yield f"model is {recipe.model!r}, not organization/{path.stem}"
    if not recipe.checked.startswith((CHECKED, UNCHECKED)):
        yield f"checked begins with neither {CHECKED!r} nor {UNCHECKED!r}"
    of_rerankers = ("task", "template", "answers", "activation")
    for field in (*OF_EMBEDDERS, *of_rerankers):
        fact: RecipeFact[Any] | None = getattr(recipe, field)
        if fact and not (fact.reason and fact.source):
            yield f"{field} has an empty reason or source"
    if recipe.prompts and not all(recipe.prompts.value.values()):
        yield "prompts has an empty text"
    for refusal in recipe.refused:
        if not (refusal.reason and refusal.source):
            yield f"refused {refusal.precision} has an empty reason or source"
    for number, vectors in enumerate(recipe.vectors):
        yield from _flaws(f"vectors[{number}]", vectors, vectors.texts, {len(row) for row in vectors.values})
    for number, pairs in enumerate(recipe.similarities):
        yield from _flaws(f"similarities[{number}]", pairs, pairs.queries, {len(pairs.documents)})
    for number, scores in enumerate(recipe.scores):
        yield from _flaws(f"scores[{number}]", scores, scores.pairs, {len(row) for row in scores.values})
        if {len(pair) for pair in scores.pairs} != {2}:
            yield f"scores[{number}].pairs has an entry that is not a query and a document"
    if recipe.template:
        yield from (f"template: {flaw}" for flaw in template_flaws(recipe.template.value))


def _flaws(where: str, golden: Golden, texts: Sized, widths: set[int]) -> Iterator[str]:
    if not texts or len(golden.values) != len(texts) or len(widths) != 1 or {*map(len, golden.values)} != widths:
        yield f"{where}.values does not have one row, all of one width, for each text"
    if [golden.atol, golden.rtol, golden.min_cosine].count(None) != 2:
        yield f"{where} does not set exactly one of atol, rtol and min_cosine"
    if not golden.source:
        yield f"{where}.source is empty"
