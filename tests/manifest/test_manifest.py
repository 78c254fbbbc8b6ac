"""The manifest: what is written is read back, and anything else is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxembed.errors import ManifestError, UsageError
from onnxembed.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    INPUTS,
    POOLING_MODES,
    Decision,
    Dense,
    Embedding,
    FileRecord,
    Manifest,
    Model,
    Prompts,
    Source,
    Tokenization,
    Variant,
    Verification,
    parse_manifest,
    read_manifest,
)

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def written(artifact: Path) -> str:
    return (artifact / FILE_NAME).read_text(encoding="utf-8")


@pytest.fixture
def data(written: str) -> JSON:
    """The tiny artifact's manifest as JSON, to be damaged."""
    loaded: JSON = json.loads(written)
    return loaded


def refusal(data: object) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps(data))
    return str(caught.value)


# ---- what is written is read back


def test_an_exported_manifest_is_read_back_and_written_again_byte_for_byte(artifact: Path, written: str) -> None:
    manifest = read_manifest(artifact)
    assert manifest.to_json() == written
    assert parse_manifest(manifest.to_json()) == manifest


def test_text_is_utf8_and_ends_with_a_newline(artifact: Path) -> None:
    text = read_manifest(artifact).to_json()
    assert text.endswith("}\n")
    assert parse_manifest(text.replace('"of: "', '"文書: "')).to_json().count("文書") == 1


words = st.text(max_size=8)
counts = st.integers(0, 2**40)
sizes = st.integers(1, 2**31 - 1)
ids = st.integers(0, 2**31 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def decisions(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(Decision, values, st.sampled_from(["file", "recipe", "flag", "architecture"]), words)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any consistent manifest: the files it reads are those it records."""
    names = st.from_regex(r"\w{1,8}(/\w{1,8}){0,2}", fullmatch=True)
    files = draw(st.dictionaries(names, st.builds(FileRecord, words, counts), min_size=1, max_size=4))
    recorded = st.sampled_from(sorted(files))
    files["tokenizer.json"] = FileRecord("", 0)
    maybe = st.none() | recorded
    operators = st.dictionaries(words, counts, max_size=3)
    dense = draw(st.lists(st.builds(Dense, sizes, sizes, words, maybe, maybe), max_size=2))
    return Manifest(
        format_version=FORMAT_VERSION,
        created_with=draw(st.dictionaries(words, words, max_size=2)),
        source=Source(draw(words), draw(st.none() | words)),
        tasks=("embedding",),
        model=Model(
            model_type=draw(words),
            attention=draw(decisions(st.sampled_from(["bidirectional", "causal"]))),
            engine="build",
            inputs=tuple(draw(st.lists(st.sampled_from(INPUTS), unique=True))),
            ignored_config_keys=tuple(draw(st.lists(words, max_size=2))),
            ignored_tensors=tuple(draw(st.lists(words, max_size=2))),
        ),
        tokenization=Tokenization(
            draw(decisions(sizes)),
            draw(decisions(st.sampled_from(["left", "right"]))),
            draw(decisions(ids)),
            tuple(draw(st.lists(words, max_size=2))),
        ),
        embedding=Embedding(
            pooling=draw(decisions(st.lists(st.sampled_from(POOLING_MODES), min_size=1).map(tuple))),
            dense=tuple(dense),
            normalize=draw(decisions(st.booleans())),
            dimension=dense[-1].out_features if dense else draw(sizes),
            pooled_by=draw(st.sampled_from(["graph", "runtime"])),
        ),
        prompts=Prompts(draw(decisions(st.dictionaries(words, words, max_size=3))), draw(decisions(st.none() | words))),
        variants=draw(
            st.dictionaries(words, st.builds(Variant, recorded, maybe, counts, operators), min_size=1, max_size=2)
        ),
        files=files,
        verification=draw(
            st.dictionaries(
                words,
                st.builds(
                    Verification,
                    words,
                    counts,
                    numbers,
                    numbers,
                    st.booleans(),
                    st.dictionaries(words, numbers, max_size=2),
                    st.dictionaries(words, words, max_size=2),
                ),
                max_size=2,
            )
        ),
    )


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifests())
def test_every_manifest_survives_writing_and_reading(manifest: Manifest) -> None:
    assert parse_manifest(manifest.to_json()) == manifest


def test_whole_numbers_are_read_where_fractions_are_expected(data: JSON) -> None:
    measured = {
        "reference": "r",
        "texts": 1,
        "max_abs_diff": 0,
        "min_cosine": 1,
        "token_ids_equal": True,
        "required": {"max_abs_diff": 1},
        "versions": {},
    }
    verification = parse_manifest(json.dumps({**data, "verification": {"fp32": measured}})).verification["fp32"]
    assert isinstance(verification.max_abs_diff, float)
    assert isinstance(verification.required["max_abs_diff"], float)


def test_values_outside_json_are_not_written(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    manifest.verification["fp32"] = Verification("r", 1, float("nan"), 1.0, True, {}, {})
    with pytest.raises(ValueError, match="JSON"):
        manifest.to_json()


# ---- closed at every level


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: d.update(extra=1), "extra is unknown"),
        (lambda d: d["source"].update(extra=1), "source.extra is unknown"),
        (lambda d: d["model"]["attention"].update(extra=1), "model.attention.extra is unknown"),
        (lambda d: d["tokenization"].update(stride=1), "tokenization.stride is unknown"),
        (lambda d: d["embedding"]["pooling"].update(extra=1), "embedding.pooling.extra is unknown"),
        (lambda d: d["prompts"]["texts"].update(extra=1), "prompts.texts.extra is unknown"),
        (lambda d: d["variants"]["fp32"].update(extra=1), "variants.fp32.extra is unknown"),
        (lambda d: d["files"]["tokenizer.json"].update(md5="0"), "files.tokenizer.json.md5 is unknown"),
        (lambda d: d["verification"].update(fp32={"extra": 1}), "verification.fp32.extra is unknown"),
        (lambda d: d.pop("prompts"), "prompts is missing"),
        (lambda d: d["embedding"].pop("normalize"), "embedding.normalize is missing"),
        (lambda d: d["embedding"]["normalize"].pop("reason"), "embedding.normalize.reason is missing"),
        (lambda d: d["files"]["tokenizer.json"].pop("bytes"), "files.tokenizer.json.bytes is missing"),
        (lambda d: d.update(source=None), "source is None, not an object"),
        (lambda d: d.update(files=[]), "files is [], not dict"),
        (lambda d: d["model"].update(inputs="input_ids"), "model.inputs is 'input_ids', not tuple"),
        (lambda d: d["model"].update(inputs=["input_ids", 7]), "model.inputs[1] is 7, not str"),
        (
            lambda d: d["tokenization"]["max_length"].update(value="20"),
            "tokenization.max_length.value is '20', not int",
        ),
        (
            lambda d: d["tokenization"]["max_length"].update(value=20.0),
            "tokenization.max_length.value is 20.0, not int",
        ),
        (
            lambda d: d["tokenization"]["max_length"].update(value=True),
            "tokenization.max_length.value is True, not int",
        ),
        (lambda d: d["embedding"]["normalize"].update(value=1), "embedding.normalize.value is 1, not bool"),
        (lambda d: d["embedding"]["normalize"].update(value=None), "embedding.normalize.value is None, not bool"),
        (lambda d: d["source"].update(revision=7), "source.revision is 7, not str"),
        (lambda d: d["prompts"]["texts"].update(value={"query": 1}), "prompts.texts.value.query is 1, not str"),
        (lambda d: d["prompts"]["default"].update(value=0), "prompts.default.value is 0, not str"),
        (lambda d: d["embedding"].update(pooled_by="hand"), "embedding.pooled_by is 'hand', not one of 'graph'"),
        (lambda d: d["embedding"]["pooling"].update(value=["avg"]), "embedding.pooling.value[0] is 'avg', not one of"),
        (lambda d: d["embedding"]["pooling"].update(origin="guess"), "embedding.pooling.origin is 'guess', not one of"),
        (lambda d: d.update(tasks=["embeding"]), "tasks[0] is 'embeding', not one of 'embedding'"),
        (lambda d: d.update(tasks=[]), "tasks is empty"),
        (lambda d: d.pop("embedding"), "tasks is embedding, which does not go with the section embedding"),
    ],
)
def test_a_value_outside_the_format_is_refused_by_name(
    data: JSON, damage: Callable[[JSON], object], problem: str
) -> None:
    damage(data)
    message = refusal(data)
    assert problem in message
    assert message.endswith("Export the model again")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: d.update(variants={}), "variants is empty"),
        (
            lambda d: d["model"]["inputs"].append("position_ids"),
            "model.inputs has 'position_ids', not one of input_ids",
        ),
        (lambda d: d["files"].pop("tokenizer.json"), "tokenization reads 'tokenizer.json', which files lacks"),
        (lambda d: d["variants"]["fp32"].update(file="x.onnx"), "variants.fp32 reads 'x.onnx', which files lacks"),
        (lambda d: d["variants"]["fp16"].update(data="x_data"), "variants.fp16 reads 'x_data', which files lacks"),
        (
            lambda d: d["embedding"]["dense"].append(
                {"in_features": 1, "out_features": 1, "activation": "tanh", "weight": "w.npy", "bias": None}
            ),
            "embedding.dense[0] reads 'w.npy', which files lacks",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    data: JSON, damage: Callable[[JSON], object], problem: str
) -> None:
    damage(data)
    assert problem in refusal(data)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/model.onnx", "onnx/../../x", "C:/x", "C:x", "..\\x", "\\x"])
def test_files_outside_the_folder_are_refused(data: JSON, name: str) -> None:
    data["files"][name] = data["files"]["tokenizer.json"]
    assert f"files names {name!r}, which leads out of the folder" in refusal(data)


def test_all_problems_are_listed_at_once_in_the_order_of_the_format(data: JSON) -> None:
    data.update(zebra=1, apple=1)
    del data["verification"]
    data["source"] = {"model": 1, "revision": 2}
    data["embedding"]["dimension"] = "wide"
    data["embedding"]["normalize"]["origin"] = "guess"
    where, _, problems = refusal(data).partition(" is not a format 1 manifest: ")
    assert where == FILE_NAME
    assert problems.removesuffix(". Export the model again").split("; ") == [
        "apple is unknown",
        "zebra is unknown",
        "verification is missing",
        "source.model is 1, not str",
        "source.revision is 2, not str",
        "embedding.normalize.origin is 'guess', not one of 'file', 'recipe', 'flag', 'architecture'",
        "embedding.dimension is 'wide', not int",
    ]


def test_the_order_does_not_depend_on_the_process() -> None:
    """Sets of strings are ordered by a hash that differs between processes."""
    program = (
        "from onnxembed.manifest import parse_manifest\n"
        'keys = "source model tokenization embedding prompts variants files".split()\n'
        "import json\n"
        "try: parse_manifest(json.dumps({'format_version': 1, **dict.fromkeys(keys)}))\n"
        "except Exception as error: print(error)\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(printed) == 1
    assert "prompts is None, not an object" in printed.pop()


# ---- versions and files


@pytest.mark.parametrize(
    ("version", "cure"),
    [
        (FORMAT_VERSION + 1, "upgrade onnxembed"),
        (FORMAT_VERSION - 1, "export the model again"),
        (None, "export the model again"),
        ("1", "export the model again"),
    ],
)
def test_another_format_version_says_what_to_do(data: JSON, version: object, cure: str) -> None:
    data.update(format_version=version, unheard_of=1)
    assert refusal(data) == (
        f"{FILE_NAME} has format_version {version!r}; this onnxembed reads version {FORMAT_VERSION}: {cure}"
    )


def test_true_is_not_version_one(data: JSON) -> None:
    data["format_version"] = True
    assert "format_version is True, not int" in refusal(data)


@pytest.mark.parametrize("text", ["", "{", "not json", '{"format_version": NaN}', "[" * 100_000])
def test_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"onnxembed.json is not valid JSON .*; export the model again"):
        parse_manifest(text)


@pytest.mark.parametrize(("value", "kind"), [([], "list"), (None, "NoneType"), ("x", "str")])
def test_json_that_is_not_an_object_is_refused(value: object, kind: str) -> None:
    assert refusal(value) == f"{FILE_NAME} holds {kind}, not an object; export the model again"


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"has no onnxembed.json: .*; make one with onnxembed export"):
        read_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=r"cannot read .*onnxembed\.json .*utf-8.*; export the model again"):
        read_manifest(tmp_path)


def test_errors_name_the_file(tmp_path: Path, data: JSON) -> None:
    del data["files"]
    (tmp_path / FILE_NAME).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FILE_NAME} is not a format")


# ---- what it answers


def test_a_variant_is_found_by_its_precision(artifact: Path) -> None:
    assert read_manifest(artifact).variant("fp16").file == "onnx/model_fp16.onnx"


def test_a_missing_variant_lists_those_there_are(data: JSON) -> None:
    del data["variants"]["fp16"]
    manifest = parse_manifest(json.dumps(data))
    with pytest.raises(UsageError, match=r"no fp16 graph \(it has: fp32\); export it again with --precision fp16"):
        manifest.variant("fp16")
