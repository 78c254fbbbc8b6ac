"""NewModel (gte-*-en-v1.5, gte-multilingual-base) and Gte: post-norm encoders with rotary positions and a gated MLP.

References: Alibaba-NLP/new-impl, modeling.py (the original code of model_type "new"), and transformers,
models/gte, whose checkpoints have the original tensor names or its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from onnxembed.errors import ModelFilesError, NoReferenceError, UnsupportedError
from onnxembed.export.architectures.architecture import Architecture, Classifier
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import attention
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import Frequencies, RopeSettings, Rotary, frequencies, plain, rope_settings, rotary


@dataclass(frozen=True)
class Rows:
    """A Linear that is one of `parts` equal groups of rows of a packed weight."""

    name: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class GatedLayerNames:
    """Tensor names of a layer, `{}` standing for its number; every layout has its own."""

    query: Rows
    key: Rows
    value: Rows
    attention_out: str
    attention_norm: str
    up: Rows
    gate: Rows
    down: str
    mlp_norm: str

    def at(self, index: int) -> GatedLayerNames:
        """The names in layer `index`."""
        return GatedLayerNames(**{part: _at(value, index) for part, value in asdict(self).items()})


def _at(value: Any, index: int) -> Any:
    return value.format(index) if isinstance(value, str) else Rows(**{**value, "name": value["name"].format(index)})


@dataclass(frozen=True)
class GatedLayerStyle:
    """What a layer's weights do not show."""

    heads: int
    head_dim: int
    activation: str
    eps: float
    attention_bias: bool = True
    gate_bias: bool = False
    down_bias: bool = True
    rms_norm: bool = False


def _original(**attention: Rows) -> GatedLayerNames:
    layer = "encoder.layer.{}"
    return GatedLayerNames(
        **attention,
        attention_out=f"{layer}.attention.o_proj",
        attention_norm=f"{layer}.attn_ln",
        up=Rows(f"{layer}.mlp.up_gate_proj", 0, 2),
        gate=Rows(f"{layer}.mlp.up_gate_proj", 1, 2),
        down=f"{layer}.mlp.down_proj",
        mlp_norm=f"{layer}.mlp_ln",
    )


PROJECTIONS = ("query", "key", "value")
PACKED = _original(
    **{name: Rows("encoder.layer.{}.attention.qkv_proj", part, 3) for part, name in enumerate(PROJECTIONS)}
)
UNPACKED = _original(**{name: Rows(f"encoder.layer.{{}}.attention.{name[0]}_proj") for name in PROJECTIONS})
NATIVE = GatedLayerNames(
    query=Rows("layers.{}.self_attn.q_proj"),
    key=Rows("layers.{}.self_attn.k_proj"),
    value=Rows("layers.{}.self_attn.v_proj"),
    attention_out="layers.{}.self_attn.o_proj",
    attention_norm="layers.{}.post_attention_layernorm",
    up=Rows("layers.{}.mlp.up_proj"),
    gate=Rows("layers.{}.mlp.gate_proj"),
    down="layers.{}.mlp.down_proj",
    mlp_norm="layers.{}.post_mlp_layernorm",
)


def new(g: Graph, config: Config, inputs: Inputs) -> Value:
    """NewModel; its code implements plain and ntk-scaled rotary positions."""
    settings = rope_settings(config)
    if settings["rope_type"] not in ("default", "ntk"):
        raise UnsupportedError(f"config.json: the type of rope_scaling is {settings['rope_type']!r}, not 'ntk'")
    names = PACKED if config.take("pack_qkv", bool, True) else UNPACKED
    return _encode(g, config, inputs, names, settings)


def gte(g: Graph, config: Config, inputs: Inputs) -> Value:
    """GteModel, and the remote code that used its model_type before; the tensors' names show which layout they have."""
    config.ignore("pack_qkv")
    settings = rope_settings(config, theta=160_000.0)
    names = next((names for names in (PACKED, UNPACKED) if g.weights.has(f"{names.at(0).query.name}.weight")), NATIVE)
    return _encode(g, config, inputs, names, settings)


def _encode(g: Graph, config: Config, inputs: Inputs, names: GatedLayerNames, settings: RopeSettings) -> Value:
    config.expect("position_embedding_type", "rope")
    # Other ways of computing the same, and options that the original code reads and does not use.
    config.ignore("unpad_inputs", "use_memory_efficient_attention", "logn_attention_scale", "logn_attention_clip1")
    norm_type = config.take("layer_norm_type", str, "layer_norm")
    if norm_type not in ("layer_norm", "rms_norm"):
        raise UnsupportedError(f"config.json: layer_norm_type is {norm_type!r}, neither layer_norm nor rms_norm")
    style = read_style(config, "gelu", rms_norm=norm_type == "rms_norm")
    positions = config.take("max_position_embeddings", int)
    if settings["rope_type"] == "ntk":
        inv_freq, factor = _ntk(settings, style.head_dim), 1.0
    else:
        inv_freq, factor = frequencies(settings, style.head_dim, positions, "config.json", bounded=False)
    turn = rotary(g, "rotary", inputs.positions, inv_freq, factor)
    x = embed(g, config, inputs, "embeddings.LayerNorm", style.eps, types=config.take("type_vocab_size", int, 1))
    return gated_layers(g, config, inputs, x, layout=names, style=style, turn=turn)


def _ntk(settings: RopeSettings, head_dim: int) -> Frequencies:
    """The original code's NTK scaling, the same at every length; with `mixed_b` it varies by dimension."""
    if unknown := sorted(settings.keys() - {"rope_type", "rope_theta", "factor", "mixed_b"}):
        raise UnsupportedError(f"config.json: rope parameters {', '.join(unknown)} are unknown for rope_type 'ntk'")
    if "factor" not in settings:
        raise ModelFilesError("config.json: rope_scaling of the type 'ntk' has no factor")
    theta, factor, power = settings["rope_theta"], settings["factor"], settings.get("mixed_b")
    if power is None:
        return plain(theta * factor, head_dim) / np.float32(factor ** (2 / head_dim))
    places = np.arange(1, head_dim // 2 + 1, dtype=np.float32)
    slowing: Frequencies = np.exp(math.log(factor) / (head_dim / 2) ** power * places**power).astype(np.float32)
    return plain(theta, head_dim) / slowing


def read_style(config: Config, activation: str, eps: float = 1e-12, **fixed: bool) -> GatedLayerStyle:
    """A layer's style by transformers' keys; `activation` and `eps` are the architecture's defaults."""
    config.take("pad_token_id", int, 0)  # what fills unused slots, which are masked
    heads = config.take("num_attention_heads", int)
    return GatedLayerStyle(
        heads=heads,
        head_dim=config.take("head_dim", int, config.take("hidden_size", int) // heads),
        activation=config.take("hidden_act", str, activation),
        eps=config.take("layer_norm_eps", float, eps),
        **fixed,
    )


def embed(g: Graph, config: Config, inputs: Inputs, norm: str, eps: float, *, types: int) -> Value:
    """LayerNorm(words + segments) -> [B, T, D], with `types` segments, which may be 0."""
    words, segments = "embeddings.word_embeddings", "embeddings.token_type_embeddings"
    config.confirm_shape(words, g.weights.shape(f"{words}.weight"), "vocab_size", "hidden_size")
    if types and (rows := g.weights.shape(f"{segments}.weight")[0]) != types:
        raise ModelFilesError(f"type_vocab_size is {types}, but {segments} has {rows} rows")
    x = g.embedding(words, inputs.input_ids)
    if types > 1:
        return g.add_layer_norm(x, g.embedding(segments, inputs.token_type_ids), norm, eps)
    return g.layer_norm(g.op("Add", x, g.weight(f"{segments}.weight")) if types else x, norm, eps)


def gated_layers(
    g: Graph, config: Config, inputs: Inputs, x: Value, *, layout: GatedLayerNames, style: GatedLayerStyle, turn: Rotary
) -> Value:
    """All layers: x -> norm(x + attention(x)) -> norm(x + down(up(x) * activation(gate(x)))), all [B, T, D]."""
    for index in range(config.take("num_hidden_layers", int)):
        names = layout.at(index)
        config.confirm_shape(names.down, g.weights.shape(f"{names.down}.weight"), "hidden_size", "intermediate_size")
        out, width = names.attention_out, style.heads * style.head_dim
        if (in_features := g.weights.shape(f"{out}.weight")[1]) != width:
            raise ModelFilesError(f"{out} takes {in_features}, not {style.heads} heads of {style.head_dim}")
        query, key, value = (
            _linear(g, x, rows, style.attention_bias) for rows in (names.query, names.key, names.value)
        )
        query, key = turn.rotate(query, style.heads), turn.rotate(key, style.heads)
        attended = attention(g, query, key, value, heads=style.heads, head_dim=style.head_dim, mask=inputs.mask)
        x = _add_norm(g, attended, x, style, linear=out, bias=style.attention_bias, norm=names.attention_norm)
        gate = g.activation(_linear(g, x, names.gate, style.gate_bias), style.activation)
        inner = g.op("Mul", _linear(g, x, names.up, style.gate_bias), gate)
        x = _add_norm(g, inner, x, style, linear=names.down, bias=style.down_bias, norm=names.mlp_norm)
    return x


def _linear(g: Graph, x: Value, rows: Rows, bias: bool) -> Value:
    total = g.weights.shape(f"{rows.name}.weight")[0]
    size = total // rows.parts
    part = slice(rows.part * size, (rows.part + 1) * size) if rows.parts > 1 else None
    return g.linear(x, rows.name, rows=part, bias=bias)


def _add_norm(g: Graph, x: Value, skip: Value, style: GatedLayerStyle, *, linear: str, bias: bool, norm: str) -> Value:
    """norm(skip + Linear(x))."""
    if style.rms_norm:
        return g.add_rms_norm(g.linear(x, linear, bias=bias), skip, norm, style.eps)[0]
    return g.add_layer_norm(g.product(x, linear), skip, norm, style.eps, linear=linear if bias else None)


def _reference_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of NewModel for GteModel, whose linear scaling with a larger base is NewModel's ntk scaling."""
    scaling = config.get("rope_scaling") or {}
    plain_ntk = scaling.get("type", "ntk") == "ntk" and scaling.keys() <= {"type", "factor"}
    layer_norm = config.get("layer_norm_type", "layer_norm") == "layer_norm"
    if not (plain_ntk and layer_norm and config.get("pack_qkv", True)):
        raise NoReferenceError(
            "transformers' Gte class computes a 'new' model only with packed q, k and v, LayerNorm and plain ntk"
        )
    theta, factor = float(config.get("rope_theta", 10000.0)), float(scaling.get("factor", 1.0))
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head_dim)}
    shared = {key: value for key, value in config.items() if key not in ("auto_map", "rope_theta", "rope_scaling")}
    return {**shared, "model_type": "gte", "architectures": ["GteModel"], "rope_parameters": rope}


GTE = Architecture(
    build=gte,
    prefix=("gte.", "new."),
    heads=r"pooler|classifier|lm_head|qa_outputs",
    classifier=Classifier("classifier", dense="pooler.dense"),
    packable=True,
    tokenizer_class="XLMRobertaTokenizer",
)
NEW = replace(GTE, build=new, prefix="new.", tokenizer_class=None, reference_config=_reference_config)
