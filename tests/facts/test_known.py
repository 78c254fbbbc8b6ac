"""Every key that the installed reference reads of a model's files is known, so that a new release shows what is new."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import onnxembed
from onnxembed import OnnxEmbedder
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.facts.facts import read_facts
from onnxembed.facts.known import KnownKeys, grouped
from onnxembed.facts.known import sentence_transformers as known
from onnxembed.facts.known.config import HARMLESS, NEUTRAL_VALUES
from onnxembed.facts.known.lora import LORA
from onnxembed.facts.known.tokenizer import TOKENIZER
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.facts.transformer import (
    MULTI_VECTOR_OPTIONS,
    TRANSFORMER_ARGUMENTS,
    TRANSFORMER_EXPECTED,
    TRANSFORMER_HARMLESS,
)
from reference_keys import attributes_of, keys_of, parameters_of
from tiny import TEXTS, change_json, write_json, write_sentence_bert
from tiny_heads import write_colbert_encoder, write_masked_lm, write_pylate
from tiny_rerankers import write_cross_encoder

PACKAGES = ("base", "sentence_transformer", "cross_encoder", "sparse_encoder", "multi_vector_encoder")

MODULES = {
    "Dense": known.DENSE,
    "Dropout": known.DROPOUT,
    "LayerNorm": known.LAYER_NORM,
    "LogitScore": known.LOGIT_SCORE,
    "MultiVectorMask": known.MULTI_VECTOR_MASK,
    "Normalize": known.NORMALIZE,
    "Pooling": known.POOLING,
    "SpladePooling": known.SPLADE_POOLING,
    "WeightedLayerPooling": known.WEIGHTED_LAYER_POOLING,
}
TRANSFORMERS = ("Transformer", "MLMTransformer", "StaticEmbedding")  # first modules, with files of their own
ABSTRACT = ("Module", "InputModule", "BaseTokenPooling")

# Every file that the reference names: whether it is read here, or why it is not.
READ = """
    config.json modules.json config_sentence_transformers.json artifact.metadata adapter_config.json
    sentence_bert_config.json sentence_roberta_config.json sentence_distilbert_config.json
    sentence_camembert_config.json sentence_albert_config.json sentence_xlm-roberta_config.json
    sentence_xlnet_config.json tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json
    vocab.txt vocab.json merges.txt tokenizer.model spm.model chat_template.jinja chat_template.json
    model.safetensors model.safetensors.index.json pytorch_model.bin pytorch_model.bin.index.json
    adapter_model.safetensors adapter_model.bin .safetensors.index.json
"""
FILES = grouped(
    {
        "read": READ,
        "of a module that modules.json names, and that is refused by its name": """
            cnn_config.json lstm_config.json router_config.json wordembedding_config.json idf.json
        """,
        "of images, sounds and films": """
            preprocessor_config.json processor_config.json video_preprocessor_config.json audio_tokenizer_config.json
        """,
        "of the texts that a model writes": "generation_config.json",
        "for readers": "modelcard.json",
        "of tokenizers that no family here has": "tiktoken.model",
    }
)

# The modules of transformers that read a checkpoint's files.
READERS = """
    tokenization_utils_base tokenization_utils_tokenizers models.auto.tokenization_auto configuration_utils
    modeling_utils utils utils.hub utils.peft_utils integrations.peft processing_utils models.auto.auto_factory
    models.auto.processing_auto
"""


def unknown(keys: set[str], table: KnownKeys) -> list[str]:
    """The keys that the table lacks."""
    return sorted(key for key in keys if key not in table)


def modules_of(package: str) -> Iterator[ModuleType]:
    folder = import_module(f"sentence_transformers.{package}.modules")
    yield from (import_module(f"{folder.__name__}.{found.name}") for found in pkgutil.iter_modules(folder.__path__))


def classes_of(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, found in inspect.getmembers(module, inspect.isclass):
        if found.__module__ == module.__name__ and hasattr(found, "config_keys"):
            yield name, found


@pytest.fixture
def models() -> list[ModuleType]:
    pytest.importorskip("sentence_transformers", reason="the reference")
    return [import_module(f"sentence_transformers.{package}.model") for package in PACKAGES]


# ---- sentence-transformers


@pytest.mark.torch
def test_every_key_of_a_model_is_known(models: list[ModuleType]) -> None:
    assert unknown(keys_of(models, "model_config"), known.MODEL) == []
    pylate = next(model._LegacyStash for model in models if hasattr(model, "_LegacyStash"))
    assert set(pylate._PYLATE_TRANSFORMER_KEYS) <= known.PYLATE


@pytest.mark.torch
def test_every_key_of_an_entry_of_modules_json_is_known(models: list[ModuleType]) -> None:
    assert unknown(keys_of(models, "module_config"), known.MODULES) == []


@pytest.mark.torch
def test_every_key_of_every_module_is_known_or_the_module_is_refused(tmp_path: Path, models: list[ModuleType]) -> None:
    found = {name: cls for package in PACKAGES for module in modules_of(package) for name, cls in classes_of(module)}
    assert found.keys() >= MODULES.keys()
    for name, cls in found.items():
        if table := MODULES.get(name):
            keys = parameters_of(cls.__init__) | {*cls.config_keys} | {*cls.config_key_renames}
            assert unknown(keys, table) == [], name
        elif name not in (*TRANSFORMERS, *ABSTRACT):
            folder = write_sentence_bert(tmp_path / name)
            kinds = ["base.modules.transformer.Transformer", f"modules.{name}"]
            entries = [
                {"idx": i, "name": str(i), "path": f"{i}" if i else "", "type": f"sentence_transformers.{kind}"}
                for i, kind in enumerate(kinds)
            ]
            write_json(folder / "modules.json", entries)
            with pytest.raises(UnsupportedError, match=rf"modules\.json has a .*{name} module"):
                read_facts(folder)


@pytest.mark.torch
def test_every_option_of_a_transformer_module_is_known(models: list[ModuleType]) -> None:
    (transformer,) = (cls for module in modules_of("base") for name, cls in classes_of(module) if name == "Transformer")
    keys = parameters_of(transformer.__init__) | keys_of([transformer._load_init_kwargs], "config")
    keys -= {"model_name_or_path", "tokenizer_name_or_path"}  # where to read from
    ours = TRANSFORMER_HARMLESS | TRANSFORMER_ARGUMENTS | TRANSFORMER_EXPECTED.keys() | MULTI_VECTOR_OPTIONS
    assert keys - ours - {"max_seq_length", "do_lower_case"} == set()


@pytest.mark.torch
def test_every_file_that_the_reference_names_is_read_or_said_to_change_nothing(models: list[ModuleType]) -> None:
    sources = [*models, *(module for package in PACKAGES for module in modules_of(package))]
    sources += [import_module(f"transformers.{reader}") for reader in READERS.split()]
    name = re.compile(r"[\w.-]+\.(json|jinja|txt|model|safetensors|bin|metadata)")
    named = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(inspect.getsource(source)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and name.fullmatch(node.value)
    }
    assert {"config.json", "modules.json", "tokenizer.json"} <= named
    assert named - FILES.keys() == set()


# ---- transformers


@pytest.mark.torch
def test_every_key_of_a_tokenizer_is_known() -> None:
    transformers = pytest.importorskip("transformers")
    base = import_module("transformers.tokenization_utils_base").PreTrainedTokenizerBase
    backend = import_module("transformers.tokenization_utils_tokenizers").TokenizersBackend
    auto = import_module("transformers.models.auto.tokenization_auto").AutoTokenizer
    sources = [base.__init__, base._from_pretrained, base.from_pretrained]
    sources += [backend.__init__, backend.convert_to_native_format, auto.from_pretrained]
    keys = keys_of(sources, "kwargs", "init_kwargs", "local_kwargs", "tokenizer_config")
    assert {"model_max_length", "added_tokens_decoder", "split_special_tokens"} <= keys
    assert unknown(keys, TOKENIZER) == []
    vocabularies = import_module("onnxembed.tokenizer.vocabularies")
    for name in vocabularies.CLASSES:
        cls = getattr(transformers, name)
        assert unknown(parameters_of(cls.__init__) | keys_of([cls], "kwargs"), TOKENIZER) == [], name


def taken(source: Path) -> set[str]:
    """The keys that a module takes of config.json."""
    methods = {"take", "take_nullable", "expect", "ignore", "has", "rename", "confirm_shape", "get", "_size"}
    keys: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in methods:
            keys |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
            keys |= {keyword.arg for keyword in node.keywords if keyword.arg}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Key", "MaskedLM"):
            keys |= {
                each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and type(each.value) is str
            }
    return keys


def imported(source: Path) -> set[Path]:
    """A module of the package, and those that it imports of the exporter, of facts and of decisions."""
    root, found, waiting = Path(onnxembed.__file__).parent, set[Path](), [source]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("onnxembed.export."):
                waiting.append(root / (str(node.module).removeprefix("onnxembed.").replace(".", "/") + ".py"))
    return found


@pytest.mark.torch
@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
def test_every_key_that_a_class_reads_of_config_json_is_taken_or_harmless(model_type: str) -> None:
    """A key that is neither stops the export where a file has it; here it shows before a file does."""
    mapping = pytest.importorskip("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    build = import_module("onnxembed.export.architectures").ARCHITECTURES[model_type].build
    if build is None or model_type not in mapping:
        pytest.skip("transformers' own class is traced, or there is none")
    package = Path(onnxembed.__file__).parent
    files = imported(Path(inspect.getfile(build)))
    files |= {*(package / "facts").glob("*.py"), *(package / "decisions").glob("*.py")}
    files |= {*(package / "export/heads").glob("*.py")}
    ours = {key for file in files for key in taken(file)} | HARMLESS.keys() | NEUTRAL_VALUES.keys() | {"model_type"}
    config = mapping[model_type]
    modeling = import_module(config.__module__.replace("configuration_", "modeling_"))
    read = attributes_of([modeling], "config")
    declared = {*config.__annotations__, *config.attribute_map.values()}
    assert len(read) > 5
    # Methods and parts of configs of several models, which are no keys.
    composite = {"get_text_config", "text_config", "vision_config", "image_token_id", "mm_tokens_per_image"}
    assert (read | declared) - ours - composite == set()


# ---- peft and model2vec


@pytest.mark.skipif(find_spec("peft") is None, reason="needs peft, whose keys are compared")
def test_every_key_of_pefts_lora_is_known() -> None:
    assert unknown({*import_module("peft").LoraConfig(r=8).to_dict()}, LORA) == []


@pytest.mark.skipif(find_spec("model2vec") is None, reason="needs model2vec, whose keys are compared")
def test_every_key_that_model2vec_reads_is_known() -> None:
    sources = [import_module(f"model2vec.{name}") for name in ("model", "persistence.persistence")]
    read = keys_of(sources, "config")
    assert "max_length" in read
    ours = {"max_length", "normalize", "hidden_dim", "model_type"} | HARMLESS.keys()
    assert read - ours == set()


# ---- what the tables do


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config_sentence_transformers.json", {"max_active_dims": 8}, "sets max_active_dims to 8, which keeps only"),
        ("config_sentence_transformers.json", {"new_key": 1}, "keys that onnxembed does not know: new_key"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "sets fast_tokenizer_files"),
        ("tokenizer_config.json", {"fix_mistral_regex": True}, "sets fix_mistral_regex"),
        ("tokenizer_config.json", {"tokenizer_truncation": {"max_length": 3}}, "overrules the truncation"),
        ("1_Pooling/config.json", {"new_key": 1}, "keys that onnxembed does not know: new_key"),
    ],
)
def test_a_key_that_changes_vectors_stops_with_its_file(
    tmp_path: Path, file: str, changes: dict[str, Any], words: str
) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / file, **changes)
    with pytest.raises(UnsupportedError, match=f"{file}.*{words}"):
        read_facts(folder)


def test_published_files_are_not_refused(shared_data: Path) -> None:
    tables = {"config_sentence_transformers.json": known.MODEL, "tokenizer_config.json": TOKENIZER}
    checked = 0
    for file in sorted((shared_data / "configs").rglob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = re.sub(r"^\d_|_\d+$", "", file.parent.name)
        if file.name == "modules.json":
            for entry in content:
                known.MODULES.check(file, entry)
        elif file.name == "tokenizer_config.json":
            TOKENIZER.check_off(file, content)  # other keys may be there
        elif table := tables.get(file.name) or MODULES.get(kind):
            table.check(file, content)
        else:
            continue
        checked += 1
    assert checked > 35


@pytest.mark.torch
def test_weighted_layers_change_nothing_without_output_hidden_states(tmp_path: Path) -> None:
    """sentence-transformers hands the module the layers only where config.json turns them on."""
    transformers = pytest.importorskip("sentence_transformers")
    folder = write_sentence_bert(tmp_path / "model")
    plain = transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:4])
    entries = json.loads((folder / "modules.json").read_text())
    path = "sentence_transformers.sentence_transformer.modules.WeightedLayerPooling"
    write_json(folder / "modules.json", [entries[0], {"name": "w", "path": "w", "type": path}, *entries[1:]])
    write_json(folder / "w/config.json", {"embedding_dimension": 32, "num_hidden_layers": 2, "layer_start": 1})
    save_file({"layer_weights": np.ones(2, np.float32)}, folder / "w/model.safetensors")
    pooled = transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:4])
    np.testing.assert_array_equal(pooled, plain)
    export(folder, tmp_path / "onnx")
    with OnnxEmbedder(tmp_path / "onnx") as model:
        np.testing.assert_allclose(model.encode(TEXTS[:4]), plain, atol=1e-6)


def test_a_module_of_another_class_is_refused(tmp_path: Path) -> None:
    folder = write_colbert_encoder(tmp_path)
    change_json(folder / "config_sentence_transformers.json", model_type=None)
    with pytest.raises(UnsupportedError, match=r"a SentenceTransformer \(model_type\), but .*MultiVectorMask"):
        read_facts(folder)


def test_an_option_of_another_class_is_refused_with_the_class_that_the_files_name(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / "sentence_bert_config.json", transformer_task="sequence-classification")
    words = "transformer_task .* in a SentenceTransformer, as config_sentence_transformers.json makes it"
    with pytest.raises(UnsupportedError, match=words):
        read_facts(folder)


@pytest.mark.parametrize("content", [{}, None], ids=["without the key", "without the file"])
def test_a_transformer_without_the_task_of_its_class_is_refused(tmp_path: Path, content: dict[str, Any] | None) -> None:
    """sentence-transformers reads such a model without its head, and pools or scores the hidden states."""
    splade = write_masked_lm(tmp_path / "splade", pooling={"pooling_strategy": "max"})
    for folder, task in (splade, "fill-mask"), (write_cross_encoder(tmp_path / "cross"), "sequence-classification"):
        (folder / "sentence_bert_config.json").unlink()
        if content is not None:
            write_json(folder / "sentence_bert_config.json", content)
        with pytest.raises(UnsupportedError, match=f"sentence_bert_config.json has no transformer_task.*'{task}'"):
            read_facts(folder)


def test_the_older_module_of_a_sparse_model_needs_no_task(tmp_path: Path) -> None:
    folder = write_masked_lm(tmp_path, pooling={"pooling_strategy": "max"})
    modules = (folder / "modules.json").read_text(encoding="utf-8")
    older = modules.replace("base.modules.transformer.Transformer", "sparse_encoder.models.MLMTransformer")
    (folder / "modules.json").write_text(older, encoding="utf-8")
    (folder / "sentence_bert_config.json").unlink()
    assert read_facts(folder).sparse is not None


@pytest.mark.parametrize("kind", ["SparseEncoder", "MultiVectorEncoder"])
def test_modules_of_another_class_name_the_file_that_makes_the_class(tmp_path: Path, kind: str) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / "config_sentence_transformers.json", model_type=kind)
    change_json(folder / "sentence_bert_config.json", transformer_task="fill-mask" if kind == "SparseEncoder" else None)
    with pytest.raises(UnsupportedError, match=r"modules\.json has .*, as config_sentence_transformers\.json makes it"):
        read_facts(folder)


def test_pylates_keys_of_a_multi_vector_encoder_are_refused(tmp_path: Path) -> None:
    """sentence-transformers takes them for the Transformer's options, whatever its own file leaves out."""
    folder = write_colbert_encoder(tmp_path)
    change_json(folder / "config_sentence_transformers.json", query_length=8)
    with pytest.raises(UnsupportedError, match="PyLate's query_length, but model_type 'MultiVectorEncoder'"):
        read_facts(folder)


def test_a_module_of_pylate_without_its_keys_is_refused(tmp_path: Path) -> None:
    """PyLate would mark and expand texts by its defaults, sentence-transformers would not."""
    folder = write_pylate(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}})
    with pytest.raises(UnsupportedError, match=r"has pylate\.models\.Dense\.Dense, but .* none of PyLate's keys"):
        read_facts(folder)


def test_modules_that_share_a_name_or_a_folder_are_refused(tmp_path: Path) -> None:
    """sentence-transformers keeps modules by name; a folder shared by two has one config.json."""
    for key, words in (("name", "several modules '0'"), ("path", "several modules in the folder ''")):
        folder = write_sentence_bert(tmp_path / key)
        file = folder / "modules.json"
        entries = [{**entry, key: {"name": "0", "path": ""}[key]} for entry in json.loads(file.read_text())]
        write_json(file, entries)
        with pytest.raises(ModelFilesError, match=words):
            read_facts(folder)
