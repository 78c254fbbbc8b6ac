"""The same by hand: FastEmbed with pandas and sentence-transformers with datasets, each as its users write it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmark.bulk.work import Work
from onnxembed.arrays import Array

SHARE = 20
"""The sample is this part of the large job."""

FASTEMBED = """
import sys, time
import pandas
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

inputs, output, folder, threads = sys.argv[1:]
TextEmbedding.add_custom_model(
    model="minilm", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="minilm"), dim=384,
    model_file="onnx/model.onnx",
)
model = TextEmbedding("minilm", specific_model_path=folder, threads=int(threads))
frame = pandas.read_parquet(inputs)
begun = time.perf_counter()
frame["vector"] = list(model.embed(frame["text"]))
frame.to_parquet(output)
print(time.perf_counter() - begun)
"""

SENTENCE_TRANSFORMERS = """
import sys, time
import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import SentenceTransformer

inputs, output, folder, threads = sys.argv[1:]
disable_progress_bars()
torch.set_num_threads(int(threads))
model = SentenceTransformer(folder, device="cpu")
rows = Dataset.from_parquet(inputs)
begun = time.perf_counter()
rows = rows.map(lambda batch: {"vector": model.encode(batch["text"])}, batched=True, batch_size=1000)
rows.to_parquet(output)
print(time.perf_counter() - begun)
"""

OURS = """
import sys, time
from pathlib import Path
from benchmark.bulk.work import run
from onnxembed import OnnxEmbedder

inputs, output, folder, threads = sys.argv[1:]
model = OnnxEmbedder(folder, threads=int(threads))
begun = time.perf_counter()
run(lambda: model, Path(inputs), Path(output))
print(time.perf_counter() - begun)
"""


def by_hand(work: Work) -> None:
    """Texts per second from a parquet file to a parquet file, peak memory, and how far vectors are from ours."""
    inputs = work.parquet(work.texts // SHARE)
    count = pq.read_metadata(inputs).num_rows
    figures: dict[str, Any] = {"texts": count}
    ways: list[tuple[str, str, Path | None, Path | None]] = [
        ("onnxembed", OURS, Path(sys.executable), work.model),
        ("fastembed_pandas", FASTEMBED, work.fastembed_python, work.fastembed_model),
        ("sentence_transformers_datasets", SENTENCE_TRANSFORMERS, Path(sys.executable), work.checkpoint),
        ("onnxembed_again", OURS, Path(sys.executable), work.model),
    ]
    ours: Array | None = None
    for name, program, python, model in ways:
        if python is None or model is None:
            figures[name] = "not asked for"
            continue
        output = work.folder / f"by-hand-{name}{'.parquet' if 'onnxembed' not in name else ''}"
        if "onnxembed" in name:
            shutil.rmtree(output, ignore_errors=True)
        seconds, peak = _timed([str(python), "-c", program, *map(str, (inputs, output, model, work.threads))])
        size = sum(path.stat().st_size for path in (output.glob("*.parquet") if output.is_dir() else [output]))
        vectors = _vectors(output)
        ours = vectors if ours is None else ours
        cosines = np.sum(ours * vectors, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(vectors, axis=1)
        figures[name] = {
            "texts_per_second": count / seconds,
            "peak_mb": peak,
            "output_bytes_per_text": size / count,
            "lowest_cosine_to_ours": float(cosines.min()),
        }
        work.record.keep("by hand", figures, done=False)
    work.record.keep("by hand", figures, done=True)


def _timed(line: Sequence[str]) -> tuple[float, float]:
    """The seconds that a program prints, and its peak memory in MB."""
    with TemporaryFile("w+") as errors:
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read()[-2000:])
    return float(printed.split()[-1]), usage.ru_maxrss * 1024 / 1e6


def _vectors(path: Path) -> Array:
    column = pq.read_table(path)["vector"].combine_chunks()
    numbers: Array = column.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(len(column), -1).astype(np.float32)
