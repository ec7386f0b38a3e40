"""Tables with one row for each clustered image, from values of those that are not copies of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal import records
from shoal.embeddings import Ids


@dataclass(frozen=True, slots=True)
class ImageRows:
    """One row for every usable image and every duplicate of one, by rising id."""

    ids: list[int]
    paths: list[str]
    source: npt.NDArray[np.int64]  # [rows], position among the usable images

    @classmethod
    def of(cls, images: pa.Table, usable: Ids) -> ImageRows:
        place = {int(image): number for number, image in enumerate(usable)}
        rows = []
        for image in images.to_pylist():
            original = image["duplicate_of"] if image["status"] == records.DUPLICATE else image["id"]
            if original in place:
                rows.append((image["id"], image["path"], place[original]))
        rows.sort()
        ids, paths, source = zip(*rows, strict=True)
        return cls(list(ids), list(paths), np.array(source, dtype=np.int64))

    def table(self, columns: dict[str, npt.NDArray[Any]], schema: pa.Schema | None = None) -> pa.Table:
        """A table with id, with path if `schema` has it, and each column [usable images] spread over the rows."""
        head: dict[str, Any] = {"id": pa.array(self.ids, pa.int64())}
        if schema is not None and "path" in schema.names:
            head["path"] = self.paths
        return pa.table({**head, **{name: values[self.source] for name, values in columns.items()}}, schema=schema)
