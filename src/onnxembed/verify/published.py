"""An artifact's vectors and scores against numbers published for its model. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.hub.model_files import hub_id
from onnxembed.manifest import Source, read_manifest
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.describe import describe_golden
from onnxembed.recipes.recipe import GoldenScores, GoldenSimilarities, GoldenVectors, Recipe
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.similarity import maxsim, mean_maxsim, sparse_dot

AnyGolden = GoldenVectors | GoldenSimilarities | GoldenScores


@dataclass(frozen=True)
class Outcome:
    """One comparison with published numbers."""

    passed: bool
    description: str
    """What was compared, how close the artifact came, and where the numbers were published."""


def find_source_recipe(source: Source) -> Recipe:
    """The recipe that an artifact was made with, or else the one of its hub id; UsageError if there is none."""
    recipe = choose_recipe(hub_id(source.model), source.recipe)
    if recipe is None:
        raise UsageError(
            f"the recipe book has no recipe for {source.model}, so there are no published numbers to compare with; "
            "name the recipe of a folder when you export it: onnxembed export FOLDER --recipe NAME"
        )
    return recipe


def check_golden(folder: Path) -> Iterator[Outcome]:
    """Compare an artifact with each published number of its recipe; UsageError if it has none."""
    manifest = read_manifest(folder)
    recipe = find_source_recipe(manifest.source)
    if not recipe.golden:
        raise UsageError(f"{recipe.file} has no published numbers")
    if manifest.reranking:
        yield from _check_scores(folder, recipe)
    else:
        yield from _check_vectors(folder, recipe)


def _check_scores(folder: Path, recipe: Recipe) -> Iterator[Outcome]:
    with OnnxReranker(folder, providers="cpu") as model:
        for golden in recipe.scores:
            scores = model.score_pairs(golden.pairs, raw_scores=golden.raw).astype(np.float64)
            yield _outcome(golden, scores.reshape(len(golden.pairs), -1))


def _check_vectors(folder: Path, recipe: Recipe) -> Iterator[Outcome]:
    with OnnxEmbedder(folder, providers="cpu") as model:
        for vectors in recipe.vectors:
            ours = model.encode(vectors.texts, prompt="", normalize=vectors.normalize)
            yield _outcome(vectors, ours[:, : len(vectors.values[0])].astype(np.float64))
        for similarities in recipe.similarities:
            yield _outcome(similarities, _similarities(model, similarities) * similarities.scale)


def _similarities(model: OnnxEmbedder, golden: GoldenSimilarities) -> NDArray[np.float64]:
    """The score of each query with each document, [queries, documents]."""
    if golden.score == "cosine":
        queries = normalize(model.encode(golden.queries, prompt=golden.query_prompt)).astype(np.float64)
        documents = normalize(model.encode(golden.documents, prompt=golden.document_prompt)).astype(np.float64)
        return queries @ documents.T
    if golden.score == "sparse_dot":
        sparse_queries = model.embed_sparse(golden.queries, prompt=golden.query_prompt)
        sparse_documents = list(model.embed_sparse(golden.documents, prompt=golden.document_prompt))
        return np.array([[sparse_dot(query, document) for document in sparse_documents] for query in sparse_queries])
    score = maxsim if golden.score == "maxsim" else mean_maxsim
    query_vectors = model.embed_multi_vector(golden.queries, kind="query")
    document_vectors = list(model.embed_multi_vector(golden.documents, kind="document"))
    return np.array([[score(query, document) for document in document_vectors] for query in query_vectors])


def _outcome(golden: AnyGolden, ours: NDArray[np.float64]) -> Outcome:
    passed, closeness = _compare(golden, ours)
    return Outcome(passed, f"{describe_golden(golden)}: {closeness}; {golden.source}")


def _compare(golden: AnyGolden, ours: NDArray[np.float64]) -> tuple[bool, str]:
    """Whether values [N, D] are within the tolerance of the published ones, and how close they are, in words."""
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
