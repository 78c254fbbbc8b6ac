"""A padded batch -> its tokens in one row, as packed graphs take them.

Shape letters: B texts, T slots of the padded batch, N tokens of all texts, S slots of the longest text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import UsageError

INPUT_IDS, TOKEN_TYPES, POSITIONS = "input_ids", "token_type_ids", "position_ids"
ENDS, OFFSETS = "cumulative_sequence_length", "token_offset"

SLOTS = 16
"""S is a multiple of this, because kernels that add a bias to the scores want its rows aligned to 16 bytes or more."""


def pack(feeds: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """The inputs of a packed graph for a padded batch, int64 [B, T] each, masked by its attention_mask.

    Returns ids, types and positions, int64 [N], the ends of the texts, int32 [B + 1], and `offsets`. Positions are
    the slots of the padded batch, as a padded graph counts them. Raises UsageError for a text without a token.
    """
    mask = feeds["attention_mask"] == 1
    lengths = mask.sum(axis=1)
    if not lengths.all():
        raise UsageError(
            f"row {int(lengths.argmin())} of a run has no token, and a packed graph has no padding to use instead"
        )
    packed: dict[str, NDArray[Any]] = {INPUT_IDS: feeds[INPUT_IDS][mask]}
    if TOKEN_TYPES in feeds:
        packed[TOKEN_TYPES] = feeds[TOKEN_TYPES][mask]
    packed[POSITIONS] = np.nonzero(mask)[1].astype(np.int64)
    packed[ENDS] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    packed[OFFSETS] = offsets(lengths, -(-int(lengths.max()) // SLOTS) * SLOTS)
    return packed


def offsets(lengths: NDArray[np.int64], slots: int) -> NDArray[np.int32]:
    """The slots of the tokens if each text were padded on the right to `slots`, then those of the padding: [B, S]."""
    real = np.arange(slots) < lengths[:, None]
    return np.concatenate([np.flatnonzero(real), np.flatnonzero(~real)]).astype(np.int32).reshape(real.shape)
