"""Tables with one row for each clustered image, from values of those that are not copies of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.embeddings import Ids


@dataclass(frozen=True, slots=True)
class ImageRows:
    """One row for every usable image and every duplicate of one, by rising id."""

    ids: Ids
    paths: pa.ChunkedArray
    source: npt.NDArray[np.int64]  # [rows], position among the usable images

    @classmethod
    def of(cls, images: pa.Table, usable: Ids) -> ImageRows:
        """Of a run's images (id, path, status, duplicate_of), some of them usable, their ids rising."""
        ids = images["id"].to_numpy()
        is_copy = pc.equal(images["status"], records.DUPLICATE)
        originals = pc.if_else(is_copy, images["duplicate_of"], images["id"]).to_numpy()
        place = np.searchsorted(usable, originals).clip(max=max(len(usable) - 1, 0))
        rows = np.flatnonzero(usable[place] == originals)
        rows = rows[np.argsort(ids[rows], kind="stable")]
        return cls(ids[rows], parquet.take(images["path"], pa.array(rows)), place[rows])

    def table(self, columns: dict[str, npt.NDArray[Any]], schema: pa.Schema | None = None) -> pa.Table:
        """A table with id, with path if `schema` has it, and each column [usable images] spread over the rows."""
        head: dict[str, Any] = {"id": pa.array(self.ids, pa.int64())}
        if schema is not None and "path" in schema.names:
            head["path"] = self.paths
        return pa.table({**head, **{name: values[self.source] for name, values in columns.items()}}, schema=schema)
