"""STS-B (Spearman) and SciFact (nDCG@10) for an embedder. Queries and documents get the model's own prompts."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed import OnnxEmbedder, binary_search, quantization_ranges, rescore
from onnxembed.arrays import FloatArray
from onnxembed.quantization import quantize
from onnxembed.runtime.outputs.pooling import normalize
from onnxembed.similarity import Hit


def sts(model: OnnxEmbedder, path: Path) -> float:
    """Spearman correlation of the cosine of each pair with its human score.

    `path` is a .csv without header: sentence1, sentence2, score.
    """
    from scipy.stats import spearmanr

    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    left, right = (normalize(model.encode([row[column] for row in rows])) for column in (0, 1))
    return float(spearmanr((left * right).sum(axis=1), [float(row[2]) for row in rows]).statistic)


@dataclass(frozen=True)
class Collection:
    """The vectors of a data set, and which documents are relevant for each query."""

    queries: FloatArray
    documents: FloatArray
    names: list[str]
    """The id of each document."""
    relevant: list[dict[str, int]]
    """For each query, how relevant documents are, by their ids."""

    def score(self, found: Iterable[Sequence[int]]) -> float:
        """Mean nDCG@10 of the places of the documents that were found for each query, best first."""
        return float(np.mean([ndcg(best, self.names, own) for best, own in zip(found, self.relevant, strict=True)]))


def collection(model: OnnxEmbedder, folder: Path) -> Collection:
    """Embed a data set in BEIR layout: corpus.jsonl, queries.jsonl, qrels/test.tsv."""
    corpus = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in jsonl(folder / "corpus.jsonl")}
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels/test.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            relevant[row["query-id"]][row["corpus-id"]] = int(row["score"])
    queries = {row["_id"]: row["text"] for row in jsonl(folder / "queries.jsonl") if row["_id"] in relevant}
    documents = normalize(model.encode_document(corpus.values()))
    vectors = normalize(model.encode_query(queries.values()))
    return Collection(vectors, documents, list(corpus), [relevant[query] for query in queries])


def retrieval(model: OnnxEmbedder, folder: Path) -> float:
    """Mean nDCG@10 of cosine search over the whole corpus of a data set."""
    found = collection(model, folder)
    return found.score(np.argsort(-(found.queries @ found.documents.T), axis=1, kind="stable"))


def retrieval_by_dtype(found: Collection, calibration: int = 1000) -> dict[str, tuple[int, float]]:
    """The bytes of a document's vector and the mean nDCG@10, for each type of the documents and way of searching.

    Queries stay float32 where documents are scored by them. The ranges of 8 bits are those of the first `calibration`
    documents.
    """
    ranges = quantization_ranges(found.documents[:calibration])
    results = {}
    for dtype in ("float32", "float16", "int8", "ubinary"):
        documents = quantize(found.documents, dtype, ranges)
        size = documents[0].nbytes
        if dtype == "ubinary":
            queries = quantize(found.queries, dtype, None)
            results["ubinary, bits alone"] = size, found.score(binary_search(queries, documents, 10))
            for more in (20, 40, 100):
                candidates = binary_search(queries, documents, more)
                hits = rescore(found.queries, documents, candidates)
                results[f"ubinary, {more} rescored"] = size, found.score(_places(hits))
        else:
            every = np.broadcast_to(np.arange(len(documents)), (len(found.queries), len(documents)))
            results[dtype] = size, found.score(_places(rescore(found.queries, documents, every, ranges=ranges)))
    return results


def _places(hits: list[list[Hit]]) -> list[list[int]]:
    return [[hit["corpus_id"] for hit in own] for own in hits]


def ndcg(best: Sequence[int], names: list[str], relevant: dict[str, int], k: int = 10) -> float:
    """Discounted gain of the first k of the places of documents, best first, divided by that of the best order."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.array([relevant.get(names[place], 0) for place in best[:k]])
    ideal = np.array(sorted(relevant.values(), reverse=True)[:k])
    return float((gains * discounts[: len(gains)]).sum() / (ideal * discounts[: len(ideal)]).sum())


def jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object per line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
