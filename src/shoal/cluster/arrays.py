"""Kinds of arrays that all rooms here know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]  # the cluster of each of n images, from 0
Neighbours = npt.NDArray[np.int32]  # [n, m], the nearest others of each of n images, as positions among the n
