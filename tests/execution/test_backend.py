"""What a placement leaves open is decided once, and impossible values are refused."""

from __future__ import annotations

from typing import Any

import pytest

from onnxembed.errors import UsageError
from onnxembed.execution import providers as provider_module
from onnxembed.execution.backend import Placement
from onnxembed.execution.cores import available_threads
from onnxembed.execution.opening import decide
from onnxembed.execution.providers import CPU, CUDA


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5])
@pytest.mark.parametrize("name", ["threads", "tokens_per_run"])
def test_impossible_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is {value!r}, not a positive whole number$"):
        decide(Placement(**{name: value}))


def test_threads_are_all_available_ones_unless_told() -> None:
    assert decide(Placement(threads=3)).threads == 3
    assert decide(Placement()).threads == available_threads()


@pytest.mark.parametrize(
    ("providers", "device_ids", "gpu", "cpu"),
    [
        ("auto", None, False, True),
        ("auto", [1], True, False),
        ("cpu", None, False, True),
        ("cuda", None, True, False),
        ([CPU, CUDA], None, False, True),
        (["tensorrt"], None, True, False),
        (["CoreMLExecutionProvider"], None, False, False),
    ],
)
def test_a_placement_decides_whether_a_gpu_or_the_cpu_runs_the_graph(
    providers: Any, device_ids: Any, gpu: bool, cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    monkeypatch.setattr(provider_module, "is_installed", lambda name: False)
    place = decide(Placement(providers, device_ids=device_ids))
    assert (place.on_gpu, place.on_cpu) == (gpu, cpu)
