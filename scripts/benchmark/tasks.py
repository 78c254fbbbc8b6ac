"""STS-B (Spearman) and SciFact (nDCG@10) for an embedder. Queries and documents get the model's own prompts."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed import OnnxEmbedder
from onnxembed.arrays import FloatArray
from onnxembed.runtime.outputs.pooling import normalize


def sts(model: OnnxEmbedder, path: Path) -> float:
    """Spearman correlation of the cosine of each pair with its human score.

    `path` is a .csv without header: sentence1, sentence2, score.
    """
    from scipy.stats import spearmanr

    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    left, right = (normalize(model.encode([row[column] for row in rows])) for column in (0, 1))
    return float(spearmanr((left * right).sum(axis=1), [float(row[2]) for row in rows]).statistic)


def retrieval(model: OnnxEmbedder, folder: Path) -> float:
    """Mean nDCG@10 of cosine search over the whole corpus.

    `folder` is in BEIR layout: corpus.jsonl, queries.jsonl, qrels/test.tsv.
    """
    corpus = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in jsonl(folder / "corpus.jsonl")}
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels/test.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            relevant[row["query-id"]][row["corpus-id"]] = int(row["score"])
    queries = {row["_id"]: row["text"] for row in jsonl(folder / "queries.jsonl") if row["_id"] in relevant}
    documents = normalize(model.encode_document(corpus.values()))
    scores = normalize(model.encode_query(queries.values())) @ documents.T  # [queries, documents]
    names = list(corpus)
    return float(np.mean([ndcg(row, names, relevant[query]) for query, row in zip(queries, scores, strict=True)]))


def ndcg(scores: FloatArray, names: list[str], relevant: dict[str, int], k: int = 10) -> float:
    """Discounted gain of the first k, divided by that of the best order."""
    best = np.argsort(-scores, kind="stable")[:k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.array([relevant.get(names[i], 0) for i in best])
    ideal = np.array(sorted(relevant.values(), reverse=True)[:k])
    return float((gains * discounts[: len(gains)]).sum() / (ideal * discounts[: len(ideal)]).sum())


def jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object per line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
