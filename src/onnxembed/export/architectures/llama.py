"""Llama, Mistral, Qwen2 and Qwen3 as embedders: pre-norm decoders with rotary positions and grouped heads.

Reference: transformers, models/llama, models/mistral, models/qwen2 and models/qwen3. Tokens see each other
as `Inputs.mask` says, causally or both ways; the reference does the same with `is_causal` in its config.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures.architecture import OLDER_ROPE_KEYS, Architecture, Classifier
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.attention import Mask, attention, local_mask, mask_for_heads
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.export.graph.rotary import Rotary, frequencies, rope_settings, rotary

LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class DecoderStyle:
    """What the layers of one decoder share and their weights do not show."""

    heads: int
    key_heads: int
    head_dim: int
    activation: str
    eps: float
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    norm_offset: float = 0.0
    """Added to the weights of every norm."""
    query_scale: float | None = None
    """None: 1 / sqrt(head_dim)."""


def llama(g: Graph, config: Config, inputs: Inputs) -> Value:
    """LlamaModel."""
    config.take("pretraining_tp", int, 1)  # slices of a product in training; the product is the same
    biased, mlp_bias = config.take("attention_bias", bool, False), config.take("mlp_bias", bool, False)
    heads = config.take("num_attention_heads", int)
    style = read_style(config, key_heads=heads, qkv_bias=biased, out_bias=biased, mlp_bias=mlp_bias)
    return _layers(g, config, inputs, style, [None] * config.take("num_hidden_layers", int))


def mistral(g: Graph, config: Config, inputs: Inputs) -> Value:
    """MistralModel: every layer has the window, unless it is null; Mistral's own is 4096."""
    window = config.take_nullable("sliding_window", int, 4096)
    return _layers(g, config, inputs, read_style(config), [window] * config.take("num_hidden_layers", int))


def qwen2(g: Graph, config: Config, inputs: Inputs) -> Value:
    """Qwen2Model: query, key and value always have biases."""
    return _layers(g, config, inputs, read_style(config, qkv_bias=True), _qwen_windows(config))


def qwen3(g: Graph, config: Config, inputs: Inputs) -> Value:
    """Qwen3Model: queries and keys are normalized per head."""
    biased = config.take("attention_bias", bool, False)
    style = read_style(config, head_dim=128, qkv_bias=biased, out_bias=biased, head_norms=True)
    return _layers(g, config, inputs, style, _qwen_windows(config))


def read_style(
    config: Config,
    *,
    key_heads: int | None = None,
    head_dim: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
) -> DecoderStyle:
    """The config's sizes; `key_heads` and `head_dim` are defaults, the latter hidden_size / heads when None."""
    for key in ("is_causal", "use_bidirectional_attention"):
        config.take(key, bool, False)  # decided before, with the caller's flag
    config.take("pad_token_id", int, 0)  # what fills unused slots, which are masked
    heads = config.take("num_attention_heads", int)
    return DecoderStyle(
        heads=heads,
        key_heads=config.take("num_key_value_heads", int, key_heads),
        head_dim=config.take("head_dim", int, head_dim or config.take("hidden_size", int) // heads),
        activation=config.take("hidden_act", str, "silu"),
        eps=config.take("rms_norm_eps", float, 1e-6),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        head_norms=head_norms,
    )


def read_layer_types(config: Config, default: list[str]) -> list[str]:
    """The type of attention of each layer, one of LAYER_TYPES."""
    types: list[str] = config.take("layer_types", list, default)
    if len(types) != len(default) or not set(types) <= set(LAYER_TYPES):
        supported = " or ".join(LAYER_TYPES)
        raise UnsupportedError(
            f"layer_types is {types!r}; onnxembed builds {supported} for each of {len(default)} layers"
        )
    return types


def _qwen_windows(config: Config) -> list[int | None]:
    """The window of each layer: by layer_types, else of those from max_window_layers on."""
    window = None
    if config.take("use_sliding_window", bool, False):
        window = config.take_nullable("sliding_window", int, 4096)
    config.ignore("sliding_window")
    first = config.take("max_window_layers", int, 28)
    layers = range(config.take("num_hidden_layers", int))
    full, sliding = LAYER_TYPES
    types = read_layer_types(config, [sliding if window is not None and index >= first else full for index in layers])
    if sliding in types and window is None:
        raise ModelFilesError(f"layer_types has {sliding}, but sliding_window or use_sliding_window turns it off")
    return [window if layer_type == sliding else None for layer_type in types]


def _layers(g: Graph, config: Config, inputs: Inputs, style: DecoderStyle, windows: list[int | None]) -> Value:
    """Embeddings, layers and the final norm; each sum is normalized in the node that computes it."""
    settings, positions = rope_settings(config), config.take("max_position_embeddings", int)
    turn = rotary(g, "rotary", inputs.positions, *frequencies(settings, style.head_dim, positions, "config.json"))
    mask = mask_for_heads(inputs.mask, style.head_dim)
    masks: dict[int | None, Mask] = {None: mask}
    masks |= {window: window_mask(g, mask, window) for window in set(windows) if window is not None}
    x = embed_tokens(g, config, inputs)
    normed = g.rms_norm(x, "layers.0.input_layernorm" if windows else "norm", style.eps)
    for index, window in enumerate(windows):
        g.layer_inputs.append(x)
        layer = f"layers.{index}"
        after = f"layers.{index + 1}.input_layernorm" if index + 1 < len(windows) else "norm"
        attended = self_attention(g, normed, f"{layer}.self_attn", style, mask=masks[window], turn=turn)
        normed, x = g.add_rms_norm(attended, x, f"{layer}.post_attention_layernorm", style.eps)
        normed, x = g.add_rms_norm(gated_mlp(g, config, normed, f"{layer}.mlp", style), x, after, style.eps)
    return normed


def window_mask(g: Graph, mask: Mask, window: int) -> Mask:
    """The mask of a layer with a window, which counts the token itself only where attention is causal."""
    return local_mask(g, mask, window - 1 if mask.causal else window)


def embed_tokens(g: Graph, config: Config, inputs: Inputs) -> Value:
    """The tokens' rows of the table [B, T, D]."""
    name = "embed_tokens"
    config.confirm_shape(name, g.weights.shape(f"{name}.weight"), "vocab_size", "hidden_size")
    return g.embedding(name, inputs.input_ids)


def self_attention(g: Graph, x: Value, name: str, style: DecoderStyle, *, mask: Mask, turn: Rotary) -> Value:
    """Attention of the tokens x [B, T, D] among themselves -> [B, T, D]."""
    sizes = {"q": style.heads, "k": style.key_heads, "v": style.key_heads}
    for part, heads in sizes.items():
        width = g.weights.shape(f"{name}.{part}_proj.weight")[0]
        if width != heads * style.head_dim or style.heads % heads:
            configured = f"{style.heads} heads, {style.key_heads} for keys and values, of head_dim {style.head_dim}"
            raise ModelFilesError(f"{name}.{part}_proj has width {width}, but the config says {configured}")
    query, key, value = (g.linear(x, f"{name}.{part}_proj", bias=style.qkv_bias) for part in sizes)
    if style.head_norms:
        query = _norm_heads(g, query, f"{name}.q_norm", style.heads, style)
        key = _norm_heads(g, key, f"{name}.k_norm", style.key_heads, style)
    query, key = turn.rotate(query, style.heads), turn.rotate(key, style.key_heads)
    attended = attention(
        g,
        query,
        key,
        value,
        heads=style.heads,
        key_heads=style.key_heads,
        head_dim=style.head_dim,
        mask=mask,
        scale=style.query_scale,
    )
    return g.linear(attended, f"{name}.o_proj", bias=style.out_bias)


def _norm_heads(g: Graph, x: Value, name: str, heads: int, style: DecoderStyle) -> Value:
    """RMSNorm of each head of x [B, T, heads * d] by itself."""
    apart = g.op("Reshape", x, g.integers(0, 0, heads, style.head_dim))
    normed = g.rms_norm(apart, name, style.eps, offset=style.norm_offset)
    return g.op("Reshape", normed, g.integers(0, 0, heads * style.head_dim))


def gated_mlp(g: Graph, config: Config, x: Value, name: str, style: DecoderStyle) -> Value:
    """down(activation(gate(x)) * up(x)), all [B, T, D]."""
    config.confirm_shape(name, g.weights.shape(f"{name}.gate_proj.weight"), "intermediate_size", "hidden_size")
    gate = g.activation(g.linear(x, f"{name}.gate_proj", bias=style.mlp_bias), style.activation)
    inner = g.op("Mul", gate, g.linear(x, f"{name}.up_proj", bias=style.mlp_bias))
    return g.linear(inner, f"{name}.down_proj", bias=style.mlp_bias)


DECODER_HEADS = r"lm_head|score|layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
DECODER_CLASSIFIER = Classifier("score", out_bias=False)

LLAMA = Architecture(
    build=llama,
    prefix="model.",
    heads=DECODER_HEADS,
    classifier=DECODER_CLASSIFIER,
    tokenizer_class="LlamaTokenizer",
)
MISTRAL = replace(LLAMA, build=mistral)
QWEN2 = Architecture(
    build=qwen2,
    prefix="model.",
    heads=DECODER_HEADS,
    classifier=DECODER_CLASSIFIER,
    traceable=True,
    undeclared_keys=OLDER_ROPE_KEYS,
    tokenizer_class="Qwen2Tokenizer",
)
QWEN3 = replace(QWEN2, build=qwen3)
