"""Fixtures shared by all tests. Everything is built here; ../shared/data adds real files where it is present."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import tokenizers

from onnxembed import OnnxEmbedder
from onnxembed.cli import STOPPING, main
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from parity_table import ParityTable
from processor import adds_bytes_exactly
from running import Outcome, Run
from tiny import write_sentence_bert
from tiny_embedders import export_tiny

SHARED = Path(__file__).parents[2] / "shared" / "data"

pytest.register_assert_rewrite("parity")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", action="store_true", help="print what the parity tests measured")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--parity-table"):
        config.pluginmanager.register(ParityTable())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("exact_bytes") and not adds_bytes_exactly():
        pytest.skip("this processor has no VNNI: sums of products of bytes saturate in 16 bits")
    asks_hub = item.get_closest_marker("hub") or "hub" in getattr(item, "fixturenames", ())
    if asks_hub and huggingface_hub.__version__.startswith("0."):
        pytest.skip("asking the hub needs huggingface_hub 1.0; older ones are for folders only")
    if item.get_closest_marker("quiet_tokenizers") and tokenizers.__version__.startswith(("0.20.", "0.21.")):
        pytest.skip("these tokenizers print remarks on the tiny vocabulary to standard output")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for this run: what passed before says nothing, and the user's own stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, configs and evaluation sets; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the founding documents' data folder beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence-transformers BERT: mean pooling, normalized, 20 tokens, with prompts."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-bert"
    return write_sentence_bert(folder, prompts={"query": "to be: ", "title": "of: "})


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The tiny BERT exported in fp32 and fp16."""
    output = tmp_path_factory.mktemp("artifact") / "tiny-bert-onnx"
    export(checkpoint, output, Options(precisions=("fp32", "fp16")))
    return output


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[OnnxEmbedder]:
    """The tiny BERT in fp32 on two threads."""
    with OnnxEmbedder(artifact, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxEmbedder]:
    """The tiny model without its Normalize module."""
    with OnnxEmbedder(export_tiny(tmp_path_factory.mktemp("raw"), normalize=False)) as model:
        yield model


@pytest.fixture(scope="module")
def pooled_by_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxEmbedder]:
    """The tiny model with its pooling, and so its normalization, left to the runtime."""
    with OnnxEmbedder(export_tiny(tmp_path_factory.mktemp("out"), Options(pooling_out=True))) as model:
        yield model


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs the command line in this process, in an empty folder, with Python's usual warnings."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in STOPPING}

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            with pytest.raises(SystemExit) as end:
                main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
