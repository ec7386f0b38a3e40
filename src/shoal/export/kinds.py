"""What a run can be written out as, and how."""

from __future__ import annotations

from typing import Final, Literal, get_args

from shoal.export.files import COPY, LINK, MOVE

Kind = Literal["folders", "csv", "parquet", "imagefolder", "fiftyone", "labelstudio"]
Layout = Literal["long", "wide"]  # of a CSV: a row an image, a column a cluster

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
TABLES: Final[tuple[Kind, ...]] = ("csv", "parquet")
KINDS_OF_FILES: Final[tuple[Kind, ...]] = ("folders", "imagefolder", "fiftyone")
MODES: Final = (COPY, LINK, MOVE)
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
DEFAULT_NAMES: Final = {"csv": "clusters.csv", "parquet": "clusters.parquet", "labelstudio": "labelstudio.json"}
