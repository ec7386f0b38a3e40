"""images.parquet as columns, for a page that asks for one image after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from shoal import records
from shoal.corrections.base import Int64
from shoal.rundir import RunDir

IMAGE_COLUMNS = ["id", "path", "uri", "sha256", "width", "height", "status", "reason", "duplicate_of"]


@dataclass(frozen=True, eq=False)
class Images:
    """images.parquet by rising id. Texts stay in Arrow's memory, for many Python strings would not be small."""

    table: pa.Table
    ids: Int64

    @classmethod
    def read(cls, run_dir: RunDir) -> Images:
        table = records.by_id(run_dir.read_images(IMAGE_COLUMNS)).combine_chunks()
        return cls(table, table["id"].to_numpy())

    def row(self, image: int) -> int:
        """Raises KeyError if the run has no such image."""
        row = int(np.searchsorted(self.ids, image))
        if row == len(self.ids) or self.ids[row] != image:
            raise KeyError(image)
        return row

    def value(self, column: str, image: int) -> Any:
        return self.table[column][self.row(image)].as_py()

    @cached_property
    def counts(self) -> dict[str, int]:
        """Images by status."""
        pairs = self.table["status"].value_counts().to_pylist()
        return {pair["values"]: pair["counts"] for pair in pairs}
