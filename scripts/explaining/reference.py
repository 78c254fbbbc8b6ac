"""Vectors as transformers gives them, with the mistakes that other programs make. Without onnxembed's graphs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import torch, transformers

Vectors = NDArray[np.float32]

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class NotApplicableError(Exception):
    """The reference has no such switch for this model."""


class Reference:
    """A checkpoint run by stock transformers: tokenizer, AutoModel, Pooling, Dense, Normalize."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        st_config = _read(folder / "config_sentence_transformers.json")
        self.prompts: dict[str, str] = st_config.get("prompts", {})
        default = st_config.get("default_prompt_name")
        self.prompt = self.prompts.get(default, "") if default else ""
        pooling = _read(folder / "1_Pooling/config.json")
        modes = [mode for mode in POOLINGS if pooling.get("pooling_mode") == mode]
        self.pooling = modes[0] if modes else "mean"
        self.length = _read(folder / "sentence_bert_config.json")["max_seq_length"]
        self.config = transformers.AutoConfig.from_pretrained(folder)
        self.decoder = self.config.model_type in ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
        self._dense = _dense(folder)
        inner = [
            place for place, special in enumerate(self._tokenizer({}).encode("a").special_tokens_mask) if not special
        ]
        whole = len(self._tokenizer({}).encode("a").ids)
        self.around = (inner[0], whole - 1 - inner[-1])
        """How many special tokens stand before a text, and behind it."""
        self._models: dict[str, Any] = {}

    def vectors(self, texts: Sequence[str], **how: Any) -> Vectors:
        """The vectors [N, D]; `how` names what is done otherwise."""
        rows = _tokens(self._tokenizer(how), texts, self, how)
        model = self._model(how)
        whole = how.get("padding", "none")
        groups = [list(range(len(rows)))] if whole != "none" else [[place] for place in range(len(rows))]
        vectors = np.zeros((len(rows), 0), np.float32)
        for group in groups:
            made = self._pooled(model, [rows[place] for place in group], how)
            if vectors.shape[1] == 0:
                vectors = np.zeros((len(rows), made.shape[1]), np.float32)
            vectors[group] = made
        return self._finished(vectors, how)

    def _tokenizer(self, how: dict[str, Any]) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        state = json.loads(tokenizer.to_str())
        if changed := how.get("normalizer"):
            if state["normalizer"]["type"] != "BertNormalizer":
                raise NotApplicableError("normalizer")
            state["normalizer"] |= changed
        if how.get("other_vocabulary"):
            vocab = state["model"]["vocab"]
            names = sorted(vocab, key=lambda name: vocab[name])
            kept, moved = names[:5], names[5:]
            state["model"]["vocab"] = {name: place for place, name in enumerate([*kept, *moved[::-1]])}
        return Tokenizer.from_str(json.dumps(state))

    def _model(self, how: dict[str, Any]) -> Any:
        key = json.dumps({name: how.get(name) for name in ("config", "precision", "other_model")}, sort_keys=True)
        if key not in self._models:
            config = transformers.AutoConfig.from_pretrained(self.folder)
            changed = how.get("config", {})
            if strange := [name for name in changed if not hasattr(config, name) and name != "is_causal"]:
                raise NotApplicableError(strange[0])
            # Some classes derive values of one key from others when they are made.
            config = type(config)(**{**config.to_dict(), **changed})
            options = {"dtype": torch.float32, "attn_implementation": "eager", "config": config}
            model = transformers.AutoModel.from_pretrained(self.folder, **options).eval()
            if how.get("other_model"):
                torch.manual_seed(7)
                for parameter in model.parameters():
                    parameter.data += torch.randn_like(parameter) * parameter.std() if parameter.ndim > 1 else 0
            self._models[key] = _rounded(model, how.get("precision"))
        return self._models[key]

    def _pooled(self, model: Any, rows: list[tuple[list[int], int]], how: dict[str, Any]) -> Vectors:
        width = max(len(ids) for ids, _ in rows)
        side = how.get("padding", "none")
        pad = self.config.pad_token_id or 0
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for place, (row, _) in enumerate(rows):
            where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[place, where], mask[place, where] = torch.tensor(row), 1
        feeds = {"input_ids": ids, "attention_mask": torch.ones_like(mask) if how.get("unmasked") else mask}
        feeds |= self._extra(ids, mask, how)
        with torch.no_grad():
            tokens = model(**feeds).last_hidden_state.float()
        pooled = mask if not how.get("all_slots") else torch.ones_like(mask)
        if how.get("specials_out"):
            inner = pooled.clone()
            for place, (row, _) in enumerate(rows):
                start = width - len(row) if side == "left" else 0
                before, after = self.around
                if len(row) > before + after:
                    inner[place, start : start + before] = 0
                    inner[place, start + len(row) - after : start + len(row)] = 0
            pooled = inner
        if how.get("prompt_out"):
            pooled = pooled.clone()
            for place, (_, count) in enumerate(rows):
                start = width - len(rows[place][0]) if side == "left" else 0
                pooled[place, start : start + count] = 0
        from sentence_transformers.sentence_transformer.modules import Pooling

        pool = Pooling(tokens.shape[-1], how.get("pooling", self.pooling))
        features = {"token_embeddings": tokens, "attention_mask": pooled}
        vectors: Vectors = pool(features)["sentence_embedding"].numpy()
        return vectors

    def _extra(self, ids: Any, mask: Any, how: dict[str, Any]) -> dict[str, Any]:
        import inspect

        names = inspect.signature(type(self._model({})).forward).parameters
        extra: dict[str, Any] = {}
        if (offset := how.get("offset")) is not None:
            if "position_ids" not in names:
                raise NotApplicableError("position_ids")
            extra["position_ids"] = torch.arange(ids.shape[1])[None].expand(ids.shape) + offset
        if how.get("types"):
            if "token_type_ids" not in names or getattr(self.config, "type_vocab_size", 0) < 2:
                raise NotApplicableError("token_type_ids")
            extra["token_type_ids"] = torch.ones_like(ids)
        if how.get("causal"):
            allowed = torch.tril(torch.ones(ids.shape[1], ids.shape[1]))[None] * mask[:, None, :]
            near = torch.triu(torch.ones_like(allowed), -getattr(self.config, "sliding_window", 0))
            full, local = (
                torch.where(seen[:, None] > 0, 0.0, torch.finfo(torch.float32).min)
                for seen in (allowed, allowed * near)
            )
            types = {"full_attention": full, "sliding_attention": local}
            extra["attention_mask"] = types if self.config.model_type == "modernbert" else full
        return extra

    def _finished(self, vectors: Vectors, how: dict[str, Any]) -> Vectors:
        for weight, bias in () if how.get("no_dense") else self._dense:
            vectors = np.tanh(vectors @ weight.T + bias)
        if how.get("no_dense") and not self._dense:
            raise NotApplicableError("dense")
        cut = how.get("cut")
        if how.get("normalize", True):
            vectors = _unit(vectors)
        if cut:
            size = vectors.shape[1] // 2
            vectors = vectors[:, :size] if cut == "only" else _unit(vectors[:, :size])
        if how.get("scale"):
            vectors = vectors * how["scale"]
        if how.get("order"):
            vectors = vectors[np.random.default_rng(0).permutation(len(vectors))]
        return vectors.astype(np.float32)


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return values


def _dense(folder: Path) -> list[tuple[Vectors, Vectors]]:
    from safetensors.numpy import load_file

    files = sorted(folder.glob("*_Dense/model.safetensors"))
    return [(weights["linear.weight"], weights["linear.bias"]) for weights in map(load_file, files)]


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class _Quantized:
    """A model traced to ONNX, with integer weights and activations as ONNX Runtime's quantize_dynamic makes them."""

    def __init__(self, model: Any) -> None:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        class Hidden(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, ids: Any, mask: Any) -> Any:
                return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

        mask = torch.ones((2, 7), dtype=torch.int64)
        mask[1, 4:] = 0
        names = ["input_ids", "attention_mask"]
        with tempfile.TemporaryDirectory() as folder:
            whole, small = f"{folder}/model.onnx", f"{folder}/model_int8.onnx"
            axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "hidden")}
            given = {"input_names": names, "output_names": ["hidden"], "dynamic_axes": axes}
            torch.onnx.export(Hidden(), (torch.ones_like(mask), mask), whole, opset_version=17, dynamo=False, **given)
            quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
            self._session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])

    def __call__(self, **feeds: Any) -> Any:
        if strange := feeds.keys() - {"input_ids", "attention_mask"}:
            raise NotApplicableError(", ".join(strange))
        if feeds["attention_mask"].ndim > 2:
            raise NotApplicableError("attention_mask")
        (hidden,) = self._session.run(None, {name: value.numpy() for name, value in feeds.items()})
        return SimpleNamespace(last_hidden_state=torch.from_numpy(hidden))


def _rounded(model: Any, precision: str | None) -> Any:
    if precision == "fp16":
        return model.half().float()
    if precision == "bf16":
        return model.bfloat16()
    if precision == "int8":
        return _Quantized(model)
    return model


def _tokens(tokenizer: Any, texts: Sequence[str], own: Reference, how: dict[str, Any]) -> list[tuple[list[int], int]]:
    """The ids of each text, cut, and how many tokens its prompt has."""
    prompt = how.get("prompt", own.prompt)
    given = [prompt + text for text in texts]
    around = tokenizer.encode("a").ids
    before, after = own.around
    first, last = around[:before], around[len(around) - after :]
    dropped = how.get("dropped")
    first = [] if dropped in ("first", "all") else first
    last = {"last": [], "all": [], "doubled": [*last, *last[-1:]]}.get(dropped or "", last)
    room = how.get("length", own.length) - len(first) - len(last)
    rows = []
    for encoding in tokenizer.encode_batch(given, add_special_tokens=False):
        ids = encoding.ids[-room:] if how.get("side") == "left" and len(encoding.ids) > room else encoding.ids[:room]
        count = sum(start < len(prompt) for start, _ in encoding.offsets)
        rows.append(([*first, *ids, *last], len(first) + count if count else 0))
    return rows
