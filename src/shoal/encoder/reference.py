"""Features that torch gave of made images, kept to see that an engine's are the same where there is no torch.

Made by bench/reference_features.py, for the embedded networks with the weights of their packages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

FILE: Final = "reference.safetensors"  # beside this module
IMAGES: Final = 8  # the first of the made images
WORKED_OUT: Final = {"probabilities": "logits"}  # features that are not kept, and from which they come
MAP_DIM: Final = 1280  # of a sketch of a whole map

Float32 = npt.NDArray[np.float32]


def name(state: Mapping[str, npt.NDArray[Any]], features: str) -> str:
    """What the rows are kept under: features of a network with exactly these tensors."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tensor.dtype} {tensor.shape} ".encode())
        digest.update(tensor.tobytes())
    return f"{digest.hexdigest()}.{WORKED_OUT.get(features, features)}"


def expected(state: Mapping[str, npt.NDArray[Any]], features: str) -> Float32 | None:
    """Rows [IMAGES, dim] for `similarity`; None if none are kept of a network with these tensors."""
    kept = load(resources.files(__package__).joinpath(FILE).read_bytes())
    found = kept.get(name(state, features))
    if found is None:
        return None
    rows: Float32 = found.astype(np.float32)
    if features == "probabilities":
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
    return rows


def similarity(found: Float32, wanted: Float32) -> tuple[float, float]:
    """Mean and least cosine similarity, row by row, of an engine's features of made images to those `expected`.

    Args:
        found: [at least n, dim], or whole maps [at least n, places * dim], of which sketches are compared.
        wanted: [n, dim].
    """
    count, dim = wanted.shape
    rows = found[:count]
    if rows.shape[1] != dim:
        rows = sketch(rows)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = np.einsum("nd,nd->n", rows, wanted) / np.maximum(norms, 1e-12)
    return float(cosine.mean()), float(cosine.min())


def sketch(maps: Float32) -> Float32:
    """Whole maps [n, places * MAP_DIM] as [n, MAP_DIM]: sums of numbers drawn from anywhere, each with a random sign.

    Cosines near 1 stay what they are: 1 - cosine to some 3 %, as after any random projection to so many dimensions
    (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002). Sums of one channel's places
    would not do: a few channels have most of a map's energy.
    """
    generator = np.random.default_rng(0)
    order = generator.permutation(maps.shape[1])
    signs = generator.choice(np.array([-1, 1], np.float32), len(order))
    sums: Float32 = (maps[:, order] * signs).reshape(len(maps), MAP_DIM, -1).sum(axis=2)
    return sums
