"""An artifact's vectors against the numbers that were published for its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.manifest import TEXT_KINDS, Source, read_manifest
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.describe import describe_golden
from onnxembed.recipes.recipe import Golden, GoldenSimilarities, GoldenVectors, Recipe
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.outputs import pooling
from onnxembed.similarity import maxsim, mean_maxsim, sparse_dot


@dataclass(frozen=True)
class Outcome:
    """One comparison: whether it held, and how near it came, in words."""

    held: bool
    words: str


def recipe_of(source: Source) -> Recipe:
    """The recipe that an artifact was made with, or else that of its hub id; UsageError when there is none."""
    recipe = choose_recipe(source.model, source.recipe)
    if recipe is None:
        raise UsageError(
            f"the recipe book has nothing about {source.model}, so there are no published numbers to compare with; "
            "a folder's recipe is named when it is exported: onnxembed export FOLDER --recipe NAME"
        )
    return recipe


def check_golden(folder: Path) -> Iterator[Outcome]:
    """Compare an artifact with each published number of its recipe; UsageError when it has none."""
    manifest = read_manifest(folder)
    recipe = recipe_of(manifest.source)
    if not recipe.golden:
        raise UsageError(f"{recipe.file} has no published numbers")
    yield from (_check_scores if manifest.reranking else _check_vectors)(folder, recipe)


def _check_scores(folder: Path, recipe: Recipe) -> Iterator[Outcome]:
    with OnnxReranker(folder, providers="cpu") as model:
        for golden in recipe.scores:
            scores = model.score_pairs(golden.pairs, raw_scores=golden.raw).astype(np.float64)
            held, near = _compare(golden, scores.reshape(len(golden.pairs), -1))
            yield Outcome(held, f"{describe_golden(golden)}: {near}; {golden.source}")


def _check_vectors(folder: Path, recipe: Recipe) -> Iterator[Outcome]:
    with OnnxEmbedder(folder, providers="cpu") as model:
        every: tuple[GoldenVectors | GoldenSimilarities, ...] = (*recipe.vectors, *recipe.similarities)
        for golden in every:
            if isinstance(golden, GoldenVectors):
                vectors = model.encode(golden.texts, prompt="", normalize=golden.normalize)
                ours = vectors[:, : len(golden.values[0])].astype(np.float64)
            else:
                ours = _similarities(model, golden) * golden.scale
            held, near = _compare(golden, ours)
            yield Outcome(held, f"{describe_golden(golden)}: {near}; {golden.source}")


def _similarities(model: OnnxEmbedder, golden: GoldenSimilarities) -> NDArray[np.float64]:
    """The score of each query with each document."""
    texts = ((golden.queries, golden.query_prompt), (golden.documents, golden.document_prompt))
    if golden.score == "cosine":
        queries, documents = (
            pooling.normalize(model.encode(each, prompt=prompt)).astype(np.float64) for each, prompt in texts
        )
        return queries @ documents.T
    if golden.score == "sparse_dot":
        ours, theirs = (list(model.embed_sparse(each, prompt=prompt)) for each, prompt in texts)
        return np.array([[sparse_dot(query, document) for document in theirs] for query in ours])
    score = maxsim if golden.score == "maxsim" else mean_maxsim
    vectors, others = (
        list(model.embed_multi_vector(each, kind=kind))
        for each, kind in zip((golden.queries, golden.documents), TEXT_KINDS, strict=True)
    )
    return np.array([[score(query, document) for document in others] for query in vectors])


def _compare(golden: Golden, ours: NDArray[np.float64]) -> tuple[bool, str]:
    theirs = np.array(golden.values)
    if golden.min_cosine is not None:
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosine = float(((ours * theirs).sum(axis=1) / lengths).min())
        return cosine >= golden.min_cosine, f"min cosine {cosine:.6f} (at least {golden.min_cosine:g})"
    difference = np.abs(ours - theirs)
    if golden.rtol is not None:
        share = float((difference / np.abs(theirs)).max())
        return share <= golden.rtol, f"max relative difference {share:.1e} (at most {golden.rtol:g})"
    worst = float(difference.max())
    return worst <= (golden.atol or 0), f"max abs difference {worst:.1e} (at most {golden.atol:g})"
