"""What the API is asked, as OpenAPI tells it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoal.export.kinds import Kind, Layout

Number = Annotated[int, Field(ge=0, lt=1 << 31)]  # of a cluster
ImageId = Annotated[int, Field(ge=0, lt=1 << 62)]


class Strict(BaseModel):
    """A request; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _OnVersion(Strict):
    base_version: Annotated[int, Field(ge=0)]
    base: str = Field(description="as in the answer that the person saw")


class Rename(_OnVersion):
    op: Literal["rename"]
    cluster: Number
    name: str | None


class Merge(_OnVersion):
    op: Literal["merge"]
    clusters: Annotated[list[Number], Field(min_length=2, max_length=10_000)]


class Split(_OnVersion):
    op: Literal["split"]
    cluster: Number
    token: str = Field(description="of the preview")


class Move(_OnVersion):
    op: Literal["move"]
    ids: Annotated[list[ImageId], Field(min_length=1, max_length=10_000_000)]
    cluster: Number | None
    name: str | None = Field(None, description="of the new cluster, where cluster is null")


class Noise(_OnVersion):
    op: Literal["noise"]
    ids: Annotated[list[ImageId], Field(min_length=1, max_length=10_000_000)]


class Undo(_OnVersion):
    op: Literal["undo"]


class Redo(_OnVersion):
    op: Literal["redo"]


EditRequest = Annotated[Rename | Merge | Split | Move | Noise | Undo | Redo, Field(discriminator="op")]


class PreviewRequest(Strict):
    cluster: Number
    parts: Annotated[int, Field(ge=2, le=20)]


Place = Annotated[float, Field(allow_inf_nan=False)]
Corner = Annotated[list[Place], Field(min_length=2, max_length=2)]


class InsideRequest(Strict):
    polygon: Annotated[list[Corner], Field(min_length=3, max_length=10_000)] | None = Field(
        description="corners on the map, x and y; null: anywhere"
    )
    cluster: Number | None = None


class RefitRequest(_OnVersion):
    pass


class ExportRequest(Strict):
    kind: Kind
    layout: Layout = "long"
