"""Whether a graph that another program made leaves padding out of account, as its attention_mask says."""

from __future__ import annotations

import numpy as np

from onnxembed.arrays import Array, Feeds
from onnxembed.errors import DeviceMemoryError, ModelFilesError
from onnxembed.execution.backend import Backend
from onnxembed.loading.agreement import outputs_read
from onnxembed.manifest import SPARSE_WEIGHTS, Manifest

# Rounding changes outputs by less than this share of their length: of floats, and of graphs of integers, where padding
# changes how values are rounded. An ignored mask changes them by about half of it.
_FLOATS, _INTEGERS = 0.05, 0.25

_SHORT, _LONG = 3, 6


def check_padding(backend: Backend, manifest: Manifest, precision: str) -> None:
    """Run a short text alone and beside a longer one.

    Raises ModelFilesError for a graph that cannot be run, gives numbers that are not finite, or has another width than
    the manifest says, and for one whose output for the text is another then: it would give texts other vectors in other
    company.
    """
    outputs, file = outputs_read(manifest), manifest.variants[precision].file
    tolerance = _FLOATS if precision in ("fp32", "fp16") else _INTEGERS
    alone, together = (_run(backend, [output.name for output in outputs], feeds, file) for feeds in _feeds(manifest))
    for output, single, both in zip(outputs, alone, together, strict=True):
        name, width = output.name, single.shape[-1]
        if output.width not in (None, width):
            raise ModelFilesError(f"{file}: {name} has {width} numbers, but the manifest says {output.width}")
        per_token = single.ndim == 3 or name == SPARSE_WEIGHTS
        ours = both[0, :_SHORT] if per_token else both[0]
        if not np.isfinite(single).all():
            raise ModelFilesError(
                f"{file}: {name} of a short text has numbers that are not finite: make the graph again"
            )
        if not np.linalg.norm(ours - single[0]) <= tolerance * np.linalg.norm(single[0]):  # so that NaN is a change
            raise ModelFilesError(
                f"{file}: {name} of a text changes with the padding beside it, so the graph does not follow its "
                "attention_mask; make the graph again, for instance with onnxembed export"
            )


def _run(backend: Backend, outputs: list[str], feeds: Feeds, file: str) -> list[Array]:
    try:
        return [*backend.run(outputs, feeds)]
    except DeviceMemoryError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelFilesError(f"{file} cannot be run on short texts: {error}") from error


def _feeds(manifest: Manifest) -> list[Feeds]:
    """The inputs of a text alone, and of that text beside a longer one."""
    pad = manifest.tokenization.pad_token_id.value
    ids = np.array([number for number in range(1, _LONG + 2) if number != pad][:_LONG], np.int64)
    short = np.where(np.arange(_LONG) < _SHORT, ids, pad)
    both = np.stack([short, ids[::-1]])
    mask = np.stack([np.arange(_LONG) < _SHORT, np.ones(_LONG, bool)]).astype(np.int64)
    together = {"input_ids": both, "attention_mask": mask, "token_type_ids": np.zeros_like(both)}
    alone = {name: array[:1, :_SHORT] for name, array in together.items()}
    return [{name: feeds[name] for name in manifest.model.inputs} for feeds in (alone, together)]
