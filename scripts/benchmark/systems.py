"""The systems under test, which the worker opens and encodes texts with. Each imports its library when opened.

Runs inside the worker, in the system's own environment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

Settings = Mapping[str, Any]
Array = NDArray[Any]

RATE_SECONDS = 0.3


class OnnxEmbed:
    """settings: artifact, precision, threads, device, and perhaps spin."""

    def __init__(self, settings: Settings) -> None:
        from onnxembed import OnnxEmbedder

        self.model: Any = OnnxEmbedder(settings["artifact"], **opening(settings))

    def versions(self) -> str:
        return versions("onnxembed")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        return np.asarray(self.model.encode(texts))

    def stream(self, texts: Iterable[str]) -> Iterator[Array]:
        """Vectors of an iterable of texts, one after another."""
        return iter(self.model.embed(texts))

    def forward(self, length: int, masked: bool) -> None:
        """Run one text of `length` tokens, a repeated sentence; `masked` turns the last token into padding."""
        mask = np.ones((1, length), np.int64)
        mask[0, -1] = not masked
        tokens = self.model.tokenize("The river carries every stone to the harbour.")
        ids = np.resize(np.array(tokens.ids, np.int64), (1, length))
        self.model.forward({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})


class OnnxRerank:
    """settings: artifact, precision, threads, device, and perhaps spin."""

    def __init__(self, settings: Settings) -> None:
        from onnxembed import OnnxReranker

        self.model = OnnxReranker(settings["artifact"], **opening(settings))

    def versions(self) -> str:
        return versions("onnxembed")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        return self.model.score(query or texts[0], texts, raw_scores=True)


class FastEmbed:
    """settings: folder (graph and tokenizer), pooling (mean, cls or last_token), normalize, dimension, threads."""

    def __init__(self, settings: Settings) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        TextEmbedding.add_custom_model(
            model="bench",
            pooling=PoolingType[settings["pooling"].upper()],
            normalization=settings["normalize"],
            sources=ModelSource(hf="bench"),
            dim=settings["dimension"],
            model_file="onnx/model.onnx",
        )
        self.model = TextEmbedding(
            "bench",
            specific_model_path=settings["folder"],
            threads=settings["threads"],
            cuda=settings["device"] == "cuda",
        )

    def versions(self) -> str:
        return versions("fastembed")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        return np.array(list(self.model.embed(texts, **sized(batch))))


class FastEmbedRerank:
    """settings: folder, threads."""

    def __init__(self, settings: Settings) -> None:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        TextCrossEncoder.add_custom_model(model="bench", model_file="onnx/model.onnx", sources=ModelSource(hf="bench"))
        self.model = TextCrossEncoder(
            "bench",
            specific_model_path=settings["folder"],
            threads=settings["threads"],
            cuda=settings["device"] == "cuda",
        )

    def versions(self) -> str:
        return versions("fastembed")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        return np.array(list(self.model.rerank(query or texts[0], texts, **sized(batch))))


class SentenceTransformers:
    """settings: checkpoint, dtype, attention (or None: its own choice), backend, threads, device."""

    def __init__(self, settings: Settings) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(settings["threads"])
        self.model: Any = SentenceTransformer(
            settings["checkpoint"],
            device=settings["device"],
            backend=settings["backend"],
            local_files_only=True,
            model_kwargs=model_kwargs(settings),
        )

    def versions(self) -> str:
        return versions("sentence-transformers", "transformers", "torch")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        return np.asarray(self.model.encode(texts, show_progress_bar=False, **sized(batch)), np.float32)


class CrossEncoders:
    """settings: those of SentenceTransformers, without backend."""

    def __init__(self, settings: Settings) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(settings["threads"])
        self.model: Any = CrossEncoder(
            settings["checkpoint"],
            device=settings["device"],
            local_files_only=True,
            model_kwargs=model_kwargs(settings),
            activation_fn=torch.nn.Identity(),
        )

    def versions(self) -> str:
        return versions("sentence-transformers", "transformers", "torch")

    def encode(self, texts: list[str], batch: int | None, query: str | None) -> Array:
        pairs = [(query or texts[0], text) for text in texts]
        return np.asarray(self.model.predict(pairs, show_progress_bar=False, **sized(batch)), np.float32)


class Roof:
    """How fast ONNX Runtime multiplies matrices here. settings: graphs (kind -> file), threads."""

    def __init__(self, settings: Settings) -> None:
        import onnxruntime

        self.threads = settings["threads"]
        self.sessions: dict[tuple[str, int], Any] = {}
        for kind, path in settings["graphs"].items():
            for threads in {1, self.threads}:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads
                self.sessions[kind, threads] = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def versions(self) -> str:
        return versions("onnxruntime")

    def rate(self, kind: str, way: str) -> dict[str, float]:
        """Products on one thread ("one"), on all threads together, or side by side on a thread each ("apart")."""
        session = self.sessions[kind, self.threads if way == "together" else 1]
        (entry,) = session.get_inputs()
        left = np.ones(entry.shape, np.float32 if kind == "fp32" else np.uint8)
        session.run(None, {entry.name: left})
        beside = self.threads if way == "apart" else 1
        stop = time.perf_counter() + RATE_SECONDS

        def repeat() -> int:
            products = 0
            while time.perf_counter() < stop:
                session.run(None, {entry.name: left})
                products += 1
            return products

        start, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(beside) as threads:
            products = sum(future.result() for future in [threads.submit(repeat) for _ in range(beside)])
        flops = float(products) * 2 * entry.shape[0] ** 3
        return {"flops": flops, "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


class TorchRoof:
    """How fast torch multiplies float16 matrices on the GPU."""

    def __init__(self, settings: Settings) -> None:
        import torch

        self.torch = torch
        self.left = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)

    def versions(self) -> str:
        return f"{versions('torch')} on {self.torch.cuda.get_device_name()}"

    def rate(self, kind: str, way: str) -> dict[str, float]:
        """Twenty products, after two for warming up."""
        for _ in range(2):
            self.left @ self.left
        self.torch.cuda.synchronize()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(20):
            self.left @ self.left
        self.torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return {"flops": 20 * 2.0 * 8192**3, "seconds": seconds, "cpu_seconds": cpu_seconds}


def opening(settings: Settings) -> dict[str, Any]:
    return {
        "precision": settings["precision"],
        "threads": settings["threads"],
        "providers": settings["device"],
        "spin": settings.get("spin", False),
    }


def model_kwargs(settings: Settings) -> dict[str, Any]:
    if settings.get("backend") == "onnx":
        return {}
    import torch

    chosen = {"attn_implementation": settings["attention"]} if settings["attention"] else {}
    return {"dtype": getattr(torch, settings["dtype"]), **chosen}


def sized(batch: int | None) -> dict[str, int]:
    """The argument for a batch size; none for the system's own default."""
    return {} if batch is None else {"batch_size": batch}


def versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


SYSTEMS: dict[str, type] = {
    "onnxembed": OnnxEmbed,
    "onnxembed-rerank": OnnxRerank,
    "fastembed": FastEmbed,
    "fastembed-rerank": FastEmbedRerank,
    "sentence-transformers": SentenceTransformers,
    "sentence-transformers-rerank": CrossEncoders,
    "roof": Roof,
    "torch-roof": TorchRoof,
}
