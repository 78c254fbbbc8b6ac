"""jina-embeddings-v3 against stock transformers, also in its published form, with and without its adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onnxembed.cli import main
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, NoReferenceError, UnsupportedError, UsageError
from onnxembed.export.checkpoint.adapters import ROWS, AdaptedCheckpoint
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Precision, read_manifest
from onnxembed.verify.references.stock_folder import stock_folder
from parity import (
    SMALL,
    Family,
    assert_half_precision_is_near,
    load_reference,
    make_graph,
    max_difference,
    torch,
)
from tiny import change_json, write_json, write_tokenizer

pytestmark = pytest.mark.torch

TOLERANCE = 5e-6
JINA = Family(
    "jina_embeddings_v3",
    {
        **SMALL,
        "hidden_size": 40,
        "max_position_embeddings": 64,  # shorter than the longest text
    },
)
TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
RANK, ALPHA = 3, 2
# The keys of the published config.json that the stock class does not have, with a smaller rank and another alpha,
# so that they show.
PUBLISHED: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaLoRA"],
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "rope_parameters": None,
    "emb_pooler": None,
    "load_trained_adapters": True,
    "lora_adaptations": TASKS,
    "lora_alpha": ALPHA,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": RANK,
    "matryoshka_dimensions": [8, 16, 40],
    "output_past": True,
    "task_instructions": dict.fromkeys(TASKS, ""),
    "truncate_dim": None,
    "use_flash_attn": True,
    "use_reentrant": False,
}
# Attention stands in both branches of its If; one of them runs.
PER_LAYER = {
    "MatMul": 6,
    "Add": 7,
    "RotaryEmbedding": 2,
    "MultiHeadAttention": 2,
    "If": 1,
    "BiasGelu": 1,
    "LayerNormalization": 2,
}


def published(folder: Path, **change: Any) -> Path:
    """The checkpoint as the original code stores it: random adapters beside every Linear and embedding."""
    JINA.save(folder)
    rng = np.random.default_rng(1)
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        layer = name.rpartition(".")[0]
        if tensor.ndim < 2:
            weights[f"roberta.{name}"] = tensor
            continue
        rows, columns = tensor.shape
        factors = [(RANK, columns), (rows, RANK)]
        for part, shape in zip("AB", factors[::-1] if "embeddings" in name else factors, strict=True):
            stack = rng.normal(0, 0.3, (len(TASKS), *shape)).astype(np.float32)
            weights[f"roberta.{layer}.parametrizations.weight.0.lora_{part}"] = stack
        weights[f"roberta.{layer}.parametrizations.weight.original"] = tensor
    save_file(weights, folder / "model.safetensors")
    change_json(folder / "config.json", **{**PUBLISHED, **change})
    return folder


def merged(folder: Path, source: Path, task: str) -> Any:
    """The stock model with one adapter of `source` merged in torch, as the original code computes it."""
    weights = load_file(source / "model.safetensors")
    plain = {}
    for name, tensor in weights.items():
        if "lora_" in name:
            continue
        value = torch.from_numpy(tensor)
        if name.endswith("original"):
            stem = name.removesuffix("original")
            a, b = (torch.from_numpy(weights[f"{stem}0.lora_{part}"][TASKS.index(task)]) for part in "AB")
            value = value + (ALPHA / RANK) * (a @ b if "embeddings" in name else b @ a)
        plain[name.replace(".parametrizations.weight.original", ".weight")] = value.numpy()
    JINA.save(folder)
    save_file(plain, folder / "model.safetensors", {"format": "pt"})
    return load_reference(folder)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-2},
        {"type_vocab_size": 2},
        {"pad_token_id": 4},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 99.0, "factor": 3.0}},
    ],
    ids=str,
)
def test_equals_the_reference(change: dict[str, Any], tmp_path: Path) -> None:
    assert max_difference(JINA.save(tmp_path / "checkpoint", **change), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("task", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_takes_the_encoder_out_of_a_task_checkpoint(task: str, tmp_path: Path) -> None:
    assert max_difference(JINA.save(tmp_path / "checkpoint", task), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("task", [*TASKS, "none"])
def test_the_published_layout_with_one_adapter_merged(task: str, tmp_path: Path) -> None:
    folder = published(tmp_path / "checkpoint")
    if task == "none":
        reference = merged(tmp_path / "merged", scaled(folder, tmp_path / "zero", 0), TASKS[0])
    else:
        reference = merged(tmp_path / "merged", folder, task)
    assert max_difference(folder, tmp_path, adapter=task, reference=reference) <= TOLERANCE


def scaled(source: Path, folder: Path, by: float) -> Path:
    """The checkpoint with adapters `by` times as large."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value * by if "lora_" in name else value for name, value in weights.items()},
        folder / "model.safetensors",
    )
    return folder


def test_adapters_differ(tmp_path: Path) -> None:
    """Otherwise parity with each adapter would prove nothing."""
    folder = published(tmp_path / "checkpoint")
    reference = merged(tmp_path / "merged", folder, TASKS[0])
    assert max_difference(folder, tmp_path, adapter=TASKS[1], reference=reference, listed=False) > 0.01


def test_which_adapter_is_never_guessed(tmp_path: Path) -> None:
    facts = read_facts(published(tmp_path / "checkpoint"))
    with pytest.raises(ModelFilesError, match=r"--adapter: retrieval\.query, .*text-matching, or none"):
        decide(facts, Flags(("mean",), normalize=True))
    with pytest.raises(UsageError, match=r"'retrieval' is not one of retrieval\.query"):
        decide(facts, Flags(("mean",), normalize=True, adapter="retrieval"))
    with pytest.raises(UsageError, match="has no adapters"):
        decide(read_facts(JINA.save(tmp_path / "plain")), Flags(("mean",), normalize=True, adapter="separation"))


def test_the_published_config_is_never_built_as_plain_xlm_roberta(tmp_path: Path) -> None:
    """Its model_type is xlm-roberta, and transformers loads it as one without a warning."""
    folder = published(tmp_path / "checkpoint")
    assert read_facts(folder).model_type == "jina_embeddings_v3"
    for change, named in (
        ({"position_embedding_type": None}, "lora_main_params_trainable|position_embeddings"),
        ({"position_embedding_type": "absolute"}, "lora_main_params_trainable|position_embeddings"),
    ):
        change_json(folder / "config.json", **change)
        assert read_facts(folder).model_type == "xlm-roberta"
        with pytest.raises((ModelFilesError, UnsupportedError), match=named):
            make_graph(folder, adapter="none")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"emb_pooler": "cls"}, "emb_pooler"),
        ({"truncate_dim": 8}, "truncate_dim"),
        ({"load_trained_adapters": False}, "load_trained_adapters"),
        ({"rotary_emb_base": None}, "rotary_emb_base"),
        ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved"),
        ({"lora_adaptations": TASKS[:3]}, "3 adapters"),
        ({"lora_rank": 4}, "rank 4"),
        ({"lora_adaptations": "separation"}, "lora_adaptations"),
        ({"intermediate_size": 71}, "intermediate_size"),
        ({"num_attention_heads": 3}, "3 heads"),
    ],
    ids=str,
)
def test_an_unsupported_setting_is_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = published(tmp_path / "checkpoint", **change)
    with pytest.raises((ModelFilesError, UnsupportedError), match=named):
        make_graph(folder, adapter="separation")


def test_adapters_that_the_weights_lack_are_an_error(tmp_path: Path) -> None:
    folder = JINA.save(tmp_path / "checkpoint")
    change_json(folder / "config.json", **PUBLISHED)
    with pytest.raises(ModelFilesError, match="have none"):
        make_graph(folder, adapter="separation")
    make_graph(folder, adapter="none")


def test_a_table_is_merged_a_part_at_a_time(tmp_path: Path) -> None:
    rows, width = 2 * ROWS + 5, 4
    rng = np.random.default_rng(2)
    shapes = {"original": (rows, width), "0.lora_A": (len(TASKS), rows, RANK), "0.lora_B": (len(TASKS), RANK, width)}
    arrays = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    table = "embeddings.word_embeddings"
    stored = {f"roberta.{table}.parametrizations.weight.{name}": array for name, array in arrays.items()}
    save_file(stored, tmp_path / "model.safetensors")
    checkpoint = AdaptedCheckpoint(tmp_path, "roberta.", task=2, tasks=len(TASKS), rank=RANK, scale=ALPHA / RANK)
    merged = checkpoint.read(f"{table}.weight")
    expected = arrays["original"] + ALPHA / RANK * (arrays["0.lora_A"][2] @ arrays["0.lora_B"][2])
    np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-6)
    assert merged.shape == (rows, width)


def test_an_export_records_the_adapter(tmp_path: Path) -> None:
    folder = published(tmp_path / "checkpoint")
    write_tokenizer(folder)
    kinds = ["custom_st.Transformer", *(f"sentence_transformers.models.{kind}" for kind in ("Pooling", "Normalize"))]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": f"{i}_x" if i else "", "type": kind} for i, kind in enumerate(kinds)],
    )
    write_json(folder / "1_x/config.json", {"word_embedding_dimension": 40, "pooling_mode_mean_tokens": True})
    export(folder, tmp_path / "out", Options(flags=Flags(adapter="text-matching")))
    adapter = read_manifest(tmp_path / "out").model.adapter
    assert adapter
    assert (adapter.value, adapter.origin) == ("text-matching", "flag")
    change_json(folder / "config.json", lora_adaptations=None)
    with pytest.raises(UnsupportedError, match=r"begins with custom_st\.Transformer"):
        read_facts(folder)


def test_the_reference_of_the_published_layout(tmp_path: Path) -> None:
    """Without adapters the stock class reads a translated config; it would silently ignore adapters."""
    folder = published(tmp_path / "checkpoint")
    with pytest.raises(NoReferenceError, match="adapters"), stock_folder(folder):
        pass
    plain = JINA.save(tmp_path / "plain")
    adapters = {key: None for key in PUBLISHED if "lora" in key or key == "load_trained_adapters"}
    change_json(plain / "config.json", **{**PUBLISHED, **adapters, "rotary_emb_base": 77.0})
    with stock_folder(plain) as stock:
        loaded = load_reference(stock)
    assert type(loaded).__name__ == "JinaEmbeddingsV3Model"
    assert max_difference(plain, tmp_path, reference=loaded) <= TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_layer_is_made_of_fused_operators_only(precision: Precision, tmp_path: Path) -> None:
    layer, operators = JINA.count_layer(tmp_path, precision)
    assert layer == PER_LAYER
    for unfused in ("Softmax", "Erf", "Transpose", "Reshape", "Split", "Where"):
        assert unfused not in operators


def test_half_precision_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    assert_half_precision_is_near(published(tmp_path / "checkpoint"), tmp_path, adapter="classification")


def test_the_command_takes_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published(tmp_path / "checkpoint")
    write_tokenizer(folder)
    arguments = ["export", str(folder), "-o", str(tmp_path / "out"), "--pooling", "mean", "--normalize"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "choose one with --adapter" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--adapter", "separation"])
    assert not end.value.code
    assert "not verified (transformers' JinaEmbeddingsV3 class" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "out")])
    assert "adapter          separation (flag: --adapter)" in capsys.readouterr().out
