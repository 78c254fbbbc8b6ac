"""The recipe book: what the files of published models do not say. Standard library only.

One TOML file per model, in the folder `export` of a checkout and in the wheel. A recipe is chosen by the
model's hub id, or by name; never because something looks alike. Recipes are closed, as the manifest is: a
key that is not known here is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from onnxembed.decoding import decode
from onnxembed.errors import RecipeError, UsageError
from onnxembed.manifest import (
    AttentionMode,
    PoolingMode,
    Precision,
    ScoreActivation,
    Task,
    Template,
    template_flaws,
)

T = TypeVar("T")

PACKAGE = Path(__file__).parent
BOOK = next((book for book in (PACKAGE / "recipe_book", PACKAGE.parents[1] / "export") if book.is_dir()), PACKAGE)

CHECKED, UNCHECKED = "files:", "unchecked:"
"""How `Recipe.checked` begins."""


@dataclass(frozen=True)
class Said(Generic[T]):
    """Something that the model's files do not say; why it is so, and where that was read."""

    value: T
    reason: str
    source: str


@dataclass(frozen=True)
class Refusal:
    """A precision that is not built, because the model's vectors would not survive it."""

    precision: Precision
    reason: str
    source: str


@dataclass(frozen=True)
class Golden:
    """What all published numbers have: a row of `values` for each text, and how far from them is near enough.

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
    """The score of each query with each document, times `scale`; each kind of text behind its prompt.

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


@dataclass(frozen=True)
class Recipe:
    """One published model.

    `checked` says how its facts were checked: "files: ..." against the model's own files, or "unchecked: ..."
    and where they come from. `end_token` is the token that every text must end with.
    """

    model: str
    checked: str
    attention: Said[AttentionMode] | None = None
    pooling: Said[tuple[PoolingMode, ...]] | None = None
    normalize: Said[bool] | None = None
    prompts: Said[dict[str, str]] | None = None
    end_token: Said[str] | None = None
    refused: tuple[Refusal, ...] = ()
    vectors: tuple[GoldenVectors, ...] = ()
    similarities: tuple[GoldenSimilarities, ...] = ()
    task: Said[Task] | None = None
    template: Said[Template] | None = None
    answers: Said[tuple[str, ...]] | None = None
    activation: Said[ScoreActivation] | None = None
    scores: tuple[GoldenScores, ...] = ()

    @property
    def name(self) -> str:
        """The hub id without its organisation: the recipe's name, and its file's."""
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


def recipe_names() -> list[str]:
    """The names of all recipes, in the order of the alphabet."""
    return sorted((path.stem for path in BOOK.glob("*.toml")), key=str.casefold)


def find_recipe(model: str) -> Recipe | None:
    """The recipe of a hub id, whatever its case; None when the book has none."""
    name = next((name for name in recipe_names() if name.casefold() == model.rpartition("/")[2].casefold()), None)
    recipe = read_recipe(name) if name else None
    return recipe if recipe and recipe.model.casefold() == model.casefold() else None


def read_recipe(name: str) -> Recipe:
    """Read a recipe by its name or hub id.

    Raises UsageError for a name that is not in the book, RecipeError for a file that is not a recipe, with
    all that is wrong with it.
    """
    if "/" in name:
        found = find_recipe(name)
        if found is None:
            raise UsageError(f"there is no recipe of {name!r}; onnxembed recipes lists them")
        return found
    if name not in recipe_names():
        raise UsageError(f"there is no recipe {name!r}; there are: {', '.join(recipe_names()) or 'none'}")
    path = BOOK / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not readable TOML: {error}") from error
    problems: list[str] = []
    recipe: Recipe = decode(Recipe, data, "", problems)
    problems = problems or list(_contradictions(recipe, path))
    if problems:
        raise RecipeError(f"{path} is not a recipe: {'; '.join(problems)}")
    return recipe


def summary(recipe: Recipe) -> str:
    """What a recipe decides, in a few words."""
    decided = [f"{field} {value}" for field, value in _decided(recipe)]
    decided += [f"no {refusal.precision}" for refusal in recipe.refused]
    decided += [f"{len(recipe.golden)} golden"] if recipe.golden else []
    return ", ".join(decided)


def describe_recipe(recipe: Recipe) -> Iterator[str]:
    """Lines that say all of a recipe."""
    yield f"{recipe.model} ({recipe.file})"
    yield recipe.checked
    said: dict[str, Said[Any] | None] = {
        "attention": recipe.attention,
        "pooling": recipe.pooling,
        "normalize": recipe.normalize,
        "end token": recipe.end_token,
        "task": recipe.task,
        "template": recipe.template,
        "answers": recipe.answers,
        "activation": recipe.activation,
    }
    for field, each in said.items():
        if each:
            yield f"{field}: {dict(_decided(recipe))[field]}"
            yield from _why(each)
    if recipe.prompts:
        for name, text in recipe.prompts.value.items():
            yield f"prompt {name}: {text!r}"
        yield from _why(recipe.prompts)
    if recipe.template:
        yield from (f"template {part}: {text!r}" for part, text in vars(recipe.template.value).items())
    for refusal in recipe.refused:
        yield f"not built: {refusal.precision}"
        yield from _why(refusal)
    for golden in recipe.golden:
        yield f"golden: {describe_golden(golden)}"
        yield f"  from {golden.source}"


def describe_golden(golden: GoldenVectors | GoldenSimilarities | GoldenScores) -> str:
    """What was published, in a few words."""
    if isinstance(golden, GoldenScores):
        return f"the {'logits' if golden.raw else 'scores'} of {_counted(golden.pairs, 'pair', 'pairs')}"
    if isinstance(golden, GoldenVectors):
        return f"the first {len(golden.values[0])} numbers of {_counted(golden.texts, 'vector', 'vectors')}"
    queries = _counted(golden.queries, "query", "queries")
    score = "similarity" if golden.score == "cosine" else golden.score
    return f"the {score} of {queries} and {_counted(golden.documents, 'document', 'documents')}"


def _counted(texts: Sized, one: str, many: str) -> str:
    return f"{len(texts)} {one if len(texts) == 1 else many}"


def _why(said: Said[Any] | Refusal) -> Iterator[str]:
    yield f"  because {said.reason}"
    yield f"  from {said.source}"


def _decided(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.attention:
        yield "attention", recipe.attention.value
    if recipe.pooling:
        yield "pooling", "+".join(recipe.pooling.value)
    if recipe.normalize:
        yield "normalize", "yes" if recipe.normalize.value else "no"
    if recipe.end_token:
        yield "end token", recipe.end_token.value
    if recipe.prompts:
        yield "prompts", "/".join(recipe.prompts.value)
    yield from _decided_reranking(recipe)


def _decided_reranking(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.task:
        yield "task", recipe.task.value
    if recipe.template:
        yield "template", "of its own"
    if recipe.answers:
        yield "answers", " against ".join(recipe.answers.value)
    if recipe.activation:
        yield "activation", recipe.activation.value


def _contradictions(recipe: Recipe, path: Path) -> Iterator[str]:
    """What the types cannot say."""
    if recipe.model.count("/") != 1 or recipe.file != path.name:
        yield f"model is {recipe.model!r}, not organisation/{path.stem}"
    if not recipe.checked.startswith((CHECKED, UNCHECKED)):
        yield f"checked begins with neither {CHECKED!r} nor {UNCHECKED!r}"
    of_embedders = ("attention", "pooling", "normalize", "prompts", "end_token")
    of_rerankers = ("task", "template", "answers", "activation")
    for field in (*of_embedders, *of_rerankers):
        said: Said[Any] | None = getattr(recipe, field)
        if said and not (said.reason and said.source):
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
        yield f"{where}.values has not one row, of one width, for each text"
    if [golden.atol, golden.rtol, golden.min_cosine].count(None) != 2:
        yield f"{where} sets not one of atol, rtol and min_cosine"
    if not golden.source:
        yield f"{where}.source is empty"
