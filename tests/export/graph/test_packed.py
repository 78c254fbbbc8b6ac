"""Packed graphs give the padded graphs' vectors. What runs them, CUDA, is replaced by an equivalent of its attention.

Only CUDA has PackedMultiHeadAttention. Here each one becomes, by the operator's documentation, attention among all
tokens of the run with a bias that keeps the texts apart; all other operators are ONNX Runtime's own.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as pybind

from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.gpu import GpuBackend
from onnxembed.execution.opening import open_backend
from onnxembed.execution.packing import pack
from onnxembed.execution.providers import CUDA, Placement, decide, wanted_providers
from onnxembed.execution.session import OpenSession, Session
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.artifact import graph_file
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.loading.agreement import check_files
from onnxembed.loading.locate import locate
from onnxembed.manifest import POOLING_MODES, read_manifest
from onnxembed.runtime.open_model import OpenModel
from tiny import TEXTS, write_encoder, write_sentence_bert

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
TOLERANCE = 1e-5
FAR = -6e4  # nothing is left of a score that it is added to


def unpacked_attention(path: Path) -> bytes:
    """The packed graph with MultiHeadAttention of all tokens, [1, N, D], for each PackedMultiHeadAttention.

    Its new inputs: "apart" [1, 1, N, N] is 0 where two tokens are of one text, else FAR; "places" [N] are those of
    the tokens in their texts.
    """
    model = onnx.load(path)
    halves = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    kind = TensorProto.FLOAT16 if halves else TensorProto.FLOAT
    _replace(model.graph.node)
    model.graph.input.append(helper.make_tensor_value_info("apart", kind, (1, 1, "tokens", "tokens")))
    model.graph.input.append(helper.make_tensor_value_info("places", TensorProto.INT64, ("tokens",)))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_axis"))
    return model.SerializeToString()  # type: ignore[no-any-return]


def _replace(nodes: Any) -> None:
    for index, node in reversed(list(enumerate(nodes))):
        for attribute in node.attribute:
            _replace(attribute.g.node)
        if node.op_type != "PackedMultiHeadAttention":
            continue
        assert node.domain == "com.microsoft"
        query, key, value, bias, offsets, ends, *distances = node.input
        assert (offsets, ends) == ("token_offset", "cumulative_sequence_length")
        name, made = node.output[0], []

        def op(op_type: str, *inputs: str, to: str, domain: str = "", **attributes: Any) -> str:
            made.append(helper.make_node(op_type, inputs, [to], domain=domain, **attributes))  # noqa: B023
            return to

        rows = [op("Unsqueeze", x, "first_axis", to=f"{name}.{part}") for part, x in enumerate((query, key, value))]
        scores = "apart"
        if distances:  # [1, 1 or H, S, S], by the tokens' places in their texts
            columns = op("Gather", distances[0], "places", to=f"{name}.columns", axis=2)
            near = op("Gather", columns, "places", to=f"{name}.near", axis=3)
            scores = op("Add", near, "apart", to=f"{name}.scores")
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        together = op(
            "MultiHeadAttention", *rows, bias, "", scores, to=f"{name}.all", domain="com.microsoft", **attributes
        )
        op("Squeeze", together, "first_axis", to=name)
        nodes.remove(node)
        for place, each in enumerate(made):
            nodes.insert(index + place, each)


class Packed:
    """A packed graph, run as CUDA would."""

    provider, device_id = CUDA, 0

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            unpacked_attention(path), options, providers=["CPUExecutionProvider"]
        )
        names = {value.name for value in self.session.get_inputs()}
        self.inputs = names - {"apart", "places"}
        self._places = names & {"places"}
        (apart,) = [value for value in self.session.get_inputs() if value.name == "apart"]
        self.kind = np.float16 if apart.type == "tensor(float16)" else np.float32
        self.tokens: list[int] = []

    def run(self, outputs: list[str], feeds: dict[str, NDArray[Any]], *, shrink: bool = False) -> Any:
        ends = feeds["cumulative_sequence_length"]
        texts = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        self.tokens.append(len(texts))
        apart = np.where(texts[:, None] == texts, 0, FAR).astype(self.kind)[None, None]
        places = np.arange(len(texts)) - ends[texts]
        assert feeds.keys() == self.inputs
        return self.session.run(list(outputs), {**feeds, "apart": apart} | dict.fromkeys(self._places, places))


def batch(vocabulary: int, pad: int, lengths: list[int], side: str = "right") -> dict[str, NDArray[np.int64]]:
    """Random ids in two segments; the pad id occurs once among real ones, and RoBERTa's positions skip it."""
    rng = np.random.default_rng(sum(lengths))
    shape = (len(lengths), max(lengths))
    feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    feeds["input_ids"] += pad
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(shape[1] - length, shape[1])
        ids = rng.integers(5, vocabulary, length)
        if length > 4:
            ids[length // 2] = pad
        feeds["input_ids"][row, place] = ids
        feeds["attention_mask"][row, place] = 1
        feeds["token_type_ids"][row, place] = np.arange(length) > length // 2
    return feeds


def difference(folder: Path, lengths: list[int], side: str = "right", precision: str = "fp32") -> float:
    """The largest difference between the vectors of the packed graph and of the padded graph on the CPU."""
    config = json.loads((folder / "config.json").read_text())
    feeds = batch(config["vocab_size"], config.get("pad_token_id") or 0, lengths, side)
    variant = read_manifest(folder).variants[precision]
    assert variant.packed
    padded = Session(folder / variant.file, wanted_providers("cpu"), threads=1)
    taken = {name: feeds[name] for name in read_manifest(folder).model.inputs}
    (expected,) = padded.run(["sentence_embedding"], taken)
    gpu = Packed(folder / variant.packed.file)
    fed = {name: value for name, value in pack(taken).items() if name in gpu.inputs}
    (vectors,) = gpu.run(["sentence_embedding"], fed)
    assert vectors.shape == expected.shape
    return float(np.abs(vectors - expected).max())


LENGTHS = [[1], [17], [3, 17, 1, 9], [20, 20, 20], [40, 2, 33, 16, 5]]


def packed(checkpoint: Path, output: Path, **flags: Any) -> Path:
    export(checkpoint, output, Options(packed=True, flags=Flags(normalize=False, **flags)))
    return output


@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_the_bert_family(model_type: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / "checkpoint", model_type, max_length=None)
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    for lengths in LENGTHS:
        assert difference(folder, lengths) <= TOLERANCE, lengths
    assert difference(folder, [3, 17, 9], "left") <= TOLERANCE


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling(mode: str, tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint", max_length=None, dense=((32, 8, "torch.nn.modules.activation.Tanh"),))
    folder = packed(tmp_path / "checkpoint", tmp_path / "out", pooling=(mode,))
    assert max(difference(folder, lengths) for lengths in LENGTHS) <= TOLERANCE


def test_several_poolings_at_once(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint", max_length=None)
    for modes in (("cls", "lasttoken"), ("mean", "cls", "max")):
        folder = packed(tmp_path / "checkpoint", tmp_path / "-".join(modes), pooling=modes)
        assert difference(folder, [3, 17, 1, 9]) <= TOLERANCE


def test_half_precision_accumulates_in_fp32_where_it_pools(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint", max_length=None)
    export(tmp_path / "checkpoint", tmp_path / "out", Options(precisions=("fp16",), packed=True))
    variant = read_manifest(tmp_path / "out").variants["fp16"]
    assert variant.packed
    assert difference(tmp_path / "out", [3, 17, 1, 9], precision="fp16") < 2e-3
    graph = onnx.load(tmp_path / "out" / variant.packed.file).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in kinds]
    assert {kinds[name] for name in weights} == {TensorProto.FLOAT16}
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    casts = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT]
    assert any("final" in node.input[0] or "LayerNorm" in node.input[0] for node in casts)


# ---- architectures that transformers makes


def make_config(transformers: Any, model_type: str) -> Any:
    common = {"vocab_size": 99, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 1}
    common |= {"intermediate_size": 56, "max_position_embeddings": 128}
    classes = {
        "mpnet": (transformers.MPNetConfig, {}),
        "gte": (getattr(transformers, "GteConfig", None), {"type_vocab_size": 2}),
        "nomic_bert": (getattr(transformers, "NomicBertConfig", None), {}),
        "modernbert": (transformers.ModernBertConfig, {"global_attn_every_n_layers": 2, "local_attention": 16}),
        "jina_embeddings_v3": (getattr(transformers, "JinaEmbeddingsV3Config", None), {}),
    }
    config, values = classes[model_type]
    return config(**common, **values)


@pytest.mark.parametrize("model_type", ["mpnet", "gte", "nomic_bert", "modernbert", "jina_embeddings_v3"])
def test_other_encoders(model_type: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="random models are made by it; needs the [torch] extra")
    parity = pytest.importorskip("parity", reason="needs the [torch] extra")
    checkpoint = parity.random_checkpoint(tmp_path / "checkpoint", make_config(transformers, model_type))
    from tiny import write_tokenizer

    write_tokenizer(checkpoint)
    folder = packed(checkpoint, tmp_path / "out", pooling=("mean",), max_length=64)
    for lengths in LENGTHS:
        assert difference(folder, lengths) <= TOLERANCE, lengths
    assert difference(folder, [3, 17, 9], "left") <= TOLERANCE


@pytest.mark.parametrize("layout", ["PACKED", "UNPACKED"])
def test_the_original_layouts_of_new(layout: str, tmp_path: Path) -> None:
    """Query, key and value as one weight, or as three."""
    pytest.importorskip("parity", reason="random models are made by transformers; needs the [torch] extra")
    import new_checkpoints
    from onnxembed.export.architectures import new as architectures_new
    from tiny import write_tokenizer

    checkpoint = new_checkpoints.GTE.save(tmp_path / "checkpoint")
    new_checkpoints.rename(checkpoint, getattr(architectures_new, layout))
    new_checkpoints.new(checkpoint, pack_qkv=layout == "PACKED")
    write_tokenizer(checkpoint)
    folder = packed(checkpoint, tmp_path / "out", pooling=("cls",), max_length=64)
    assert read_manifest(folder).model.model_type == "new"
    for lengths in LENGTHS:
        assert difference(folder, lengths) <= TOLERANCE, lengths
    assert difference(folder, [3, 17, 9], "left") <= TOLERANCE


def test_windows_are_a_bias_where_a_text_is_longer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="random models are made by it; needs the [torch] extra")
    parity = pytest.importorskip("parity", reason="needs the [torch] extra")
    checkpoint = parity.random_checkpoint(tmp_path / "checkpoint", make_config(transformers, "modernbert"))
    from tiny import write_tokenizer

    write_tokenizer(checkpoint)
    folder = packed(checkpoint, tmp_path / "out", pooling=("cls",), max_length=64)
    graph = read_manifest(folder).variants["fp32"].packed
    assert graph
    # 2 global layers, and 1 local one with a branch for runs that need no window.
    assert graph.operators["PackedMultiHeadAttention"] == 4
    assert "MultiHeadAttention" not in graph.operators
    assert difference(folder, [60, 7, 33]) <= TOLERANCE


# ---- the artifact


def test_the_schema_is_the_one_that_is_written(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint")
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    schemas = [schema for schema in pybind.get_all_operator_schema() if schema.name == "PackedMultiHeadAttention"]
    (schema,) = schemas
    nodes = onnx.load(folder / "onnx/model_packed.onnx").graph.node
    attentions = [node for node in nodes if node.op_type == schema.name]
    assert len(attentions) == 2
    for node in attentions:
        assert node.domain == schema.domain
        assert {attribute.name for attribute in node.attribute} <= set(schema.attributes)
        assert [value.name for value in schema.inputs][: len(node.input)][4:] == list(node.input)[4:]


def test_the_cpu_lacks_only_the_kernel_of_packed_attention(tmp_path: Path) -> None:
    """Types and shapes are checked before kernels are looked for."""
    write_sentence_bert(tmp_path / "checkpoint")
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    with pytest.raises(Exception, match="Could not find an implementation for PackedMultiHeadAttention"):
        onnxruntime.InferenceSession(folder / "onnx/model_packed.onnx", providers=["CPUExecutionProvider"])


def test_large_weights_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sentence_bert(tmp_path / "checkpoint", max_length=None)
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", 1000)
    monkeypatch.setattr(graph_file, "PAGE", 64)
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    size = (folder / "onnx/model.onnx_data").stat().st_size
    assert size > 5 * (folder / "onnx/model_packed.onnx").stat().st_size
    graph = onnx.load(folder / "onnx/model_packed.onnx", load_external_data=False).graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "model.onnx_data"
    }
    onnx.save(onnx.load(folder / "onnx/model_packed.onnx"), folder / "onnx/model_packed.onnx")  # with its data inside
    assert difference(folder, [3, 17, 1, 9]) <= TOLERANCE


def test_only_gpus_read_the_packed_graph(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint")
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    cpu, gpu = locate(folder, device="cpu"), locate(folder, device="gpu")
    assert cpu.graph.packed is None
    assert gpu.graph.packed == folder / "onnx/model_packed.onnx"
    assert gpu.records.keys() - cpu.records.keys() == {"onnx/model_packed.onnx"}
    check_files(folder, gpu.records)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])  # which takes positions, and which counts them itself
def test_an_embedder_on_cuda_runs_the_packed_graph(model_type: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / "checkpoint", model_type)
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    expected = OnnxEmbedder(folder, providers="cpu").encode(TEXTS[:6])
    sessions: list[Packed] = []

    def session(path: Path, wanted: Any, threads: int) -> Packed:
        sessions.append(Packed(path))
        return sessions[-1]

    opened = OpenModel(
        folder,
        ("embedding",),
        Placement("cuda"),
        open_backend=partial(open_backend, open_session=cast(OpenSession, session)),
    )
    with OnnxEmbedder.over(opened) as model:
        np.testing.assert_allclose(model.encode(TEXTS[:6]), expected, atol=TOLERANCE)
        lengths = [len(tokens) for tokens in model.tokenize(sorted(set(TEXTS[:6])))]
        assert sessions[0].tokens == [sum(lengths)]  # one run, no padding
        pad = read_manifest(folder).tokenization.pad_token_id.value
        feeds = batch(40, pad, [3, 9, 5], "left")
        np.testing.assert_allclose(
            model.forward(feeds), OnnxEmbedder(folder, providers="cpu").forward(feeds), atol=TOLERANCE
        )


def test_cuda_runs_the_padded_graph_where_there_is_no_other(artifact: Path) -> None:
    opened = []

    def session(path: Path, *arguments: Any) -> Packed:
        opened.append(path)
        return Packed.__new__(Packed)

    graph = locate(artifact, device="gpu").graph
    backend = open_backend(graph, decide(Placement("cuda", threads=1)), cast(OpenSession, session))
    assert isinstance(backend, GpuBackend)
    assert opened == [artifact / "onnx/model.onnx"]
    assert graph == GraphFiles(artifact / "onnx/model.onnx", (artifact / "onnx/model.onnx").stat().st_size, built=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precisions": ("fp32", "bf16")}, "kernels for fp32 and fp16, not for bf16"),
        ({"pooling_out": True}, "cannot be had with --pooling-out"),
        ({"engine": "trace"}, "engine trace writes graphs of its own"),
    ],
)
def test_a_model_without_a_packed_form_is_refused(
    checkpoint: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    if "engine" in options:
        pytest.importorskip("torch", reason="needs the [torch] extra")
    with pytest.raises(UnsupportedError, match=f"^--packed: .*{words}"):
        export(checkpoint, tmp_path / "out", Options(packed=True, **options))
    assert not (tmp_path / "out").exists()


def test_every_model_type_here_is_tested() -> None:
    packable = {model_type for model_type, architecture in ARCHITECTURES.items() if architecture.packable}
    assert {*BERT_LIKE, "mpnet", "gte", "new", "nomic_bert", "modernbert", "jina_embeddings_v3"} == packable


def test_the_command_line_writes_the_packed_graph_and_inspect_shows_it(checkpoint: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    made = CliRunner().invoke(cli, ["export", str(checkpoint), "-o", output, "--packed", "--no-verify"])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(cli, ["inspect", output], catch_exceptions=False).output
    assert "fp32, for CUDA without padding: onnx/model_packed.onnx" in shown
    assert "2 PackedMultiHeadAttention" in shown
    assert "fp32 without padding: not verified (needs CUDA)" in made.output


@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_shapes_are_known_where_sums_are_normalized(model_type: str, tmp_path: Path) -> None:
    """ONNX Runtime fuses a sum with its LayerNormalization only if it knows that both terms have the same shape."""
    write_encoder(tmp_path / "checkpoint", model_type, max_length=None)
    folder = packed(tmp_path / "checkpoint", tmp_path / "out")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    for file in ("model", "model_packed"):
        options.optimized_model_filepath = str(tmp_path / f"{file}.onnx")
        source = unpacked_attention(folder / f"onnx/{file}.onnx") if "packed" in file else folder / f"onnx/{file}.onnx"
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        operators = [node.op_type for node in onnx.load(tmp_path / f"{file}.onnx").graph.node]
        assert operators.count("SkipLayerNormalization") >= 4  # two a layer
        assert operators.count("LayerNormalization") <= 1  # of the embeddings
