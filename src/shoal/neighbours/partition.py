"""A tree of planes that orders rows so that similar ones lie near one another, and equal ones in the same leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32, products

Leaves = npt.NDArray[np.int32]

ROUNDS = 4  # of 2-means for each plane: the plane need only be good, not best


@dataclass(frozen=True, slots=True)
class PlaneTree:
    """Every inner node splits space by a plane; leaves are numbered from left to right, siblings side by side."""

    planes: Float32  # [P, d]
    offsets: Float32  # [P]
    children: Leaves  # [P, 2]: a node's number, or ~leaf
    root: int

    @classmethod
    def grow(cls, sample: Float32, leaf_rows: int, random: np.random.Generator) -> PlaneTree:
        """Halve the sample [n, d] by planes across the two means of each part, down to at most `leaf_rows` a part."""
        planes: list[Float32] = []
        offsets: list[float] = []
        children: list[tuple[int, int]] = []
        leaves = 0

        def grow_node(rows: npt.NDArray[np.intp]) -> int:
            nonlocal leaves
            part = sample[rows]
            plane = _between_means(part, random)
            along = _along(part, plane)
            offset = float(np.median(along))
            right = along > offset
            if len(rows) <= leaf_rows or not right.any():
                leaves += 1
                return ~(leaves - 1)
            number = len(planes)
            planes.append(plane)
            offsets.append(offset)
            children.append((0, 0))
            children[number] = (grow_node(rows[~right]), grow_node(rows[right]))
            return number

        root = grow_node(np.arange(len(sample)))
        d = sample.shape[1]
        return cls(
            np.array(planes, dtype=np.float32).reshape(-1, d),
            np.array(offsets, dtype=np.float32),
            np.array(children, dtype=np.int32).reshape(-1, 2),
            root,
        )

    def leaves(self, rows: Float32) -> Leaves:
        """The leaf of each of `rows` [m, d]; the same for equal rows, whatever else is among `rows`."""
        leaf = np.empty(len(rows), dtype=np.int32)
        waiting = [(self.root, np.arange(len(rows)))]
        while waiting:
            node, here = waiting.pop()
            if node < 0:
                leaf[here] = ~node
            elif len(here):
                right = _along(rows[here], self.planes[node]) > self.offsets[node]
                waiting += zip(self.children[node].tolist(), (here[~right], here[right]), strict=True)
        return leaf


def _between_means(rows: Float32, random: np.random.Generator) -> Float32:
    """The direction from one to the other of two means of `rows`."""
    first = rows[random.integers(len(rows))]
    plane: Float32 = rows[np.argmin(_along(rows, first))] - first
    for _ in range(ROUNDS):
        along = _along(rows, plane)
        right = along > np.median(along)
        if not right.any():
            break
        plane = rows[right].mean(axis=0) - rows[~right].mean(axis=0)
    return plane


def _along(rows: Float32, plane: Float32) -> Float32:
    """How far each of `rows` [m, d] lies along the normal of a plane [d], [m].

    An offset is a median, so rows lie on their plane but for rounding, and the last bit chooses the side of all that
    are equal to them.
    """
    return products(rows, plane[None])[:, 0]
