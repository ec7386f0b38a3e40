"""Rows of an array as clusterings by direction take them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32


def single_precision(rows: npt.NDArray[np.floating]) -> Float32:
    """Rows [n, d] as float32 of the same directions; lengths beyond float32 would overflow when squared."""
    scale = np.abs(rows).max(axis=1, keepdims=True)
    scaled: Float32 = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0).astype(np.float32)
    return scaled
