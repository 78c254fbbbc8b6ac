"""Readouts: several share one run, and each gets back what it added to the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.runtime.outputs.joint import JointReadout
from onnxembed.runtime.outputs.readout import Readout


class Scaled:
    """Reads outputs scaled by a number that is passed along with the inputs."""

    def __init__(self, factor: int, *outputs: str) -> None:
        self.outputs = outputs
        self._factor = factor

    def prepare(self, feeds: Feeds) -> Feeds:
        return {**feeds, f"factor of {self.outputs[0]}": np.array([self._factor])}

    def read(self, outputs: Sequence[FloatArray], feeds: Feeds) -> FloatArray:
        return sum(outputs, np.float32(0)) * feeds[f"factor of {self.outputs[0]}"].astype(np.float32)


def test_a_joint_readout_gives_each_readout_its_outputs_and_inputs() -> None:
    readouts: list[Readout[FloatArray]] = [Scaled(10, "a"), Scaled(100, "b", "c")]
    joint = JointReadout(readouts)
    assert joint.outputs == ["a", "b", "c"]
    feeds = joint.prepare({"input_ids": np.ones((2, 3), np.int64)})
    assert feeds["input_ids"].shape == (2, 3)
    outputs = [np.array(values, np.float32) for values in ([1, 2], [3, 4], [5, 6])]
    assert joint.read(outputs, feeds) == [(10, 800), (20, 1000)]
