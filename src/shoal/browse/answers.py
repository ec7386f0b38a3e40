"""What the API answers, as OpenAPI tells it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Run(BaseModel):
    name: str
    kind: Literal["run", "model"]
    images: int = 0
    clusters: int = 0
    unsure: int = 0
    skipped: int = 0
    duplicates: int = 0
    has_labels: bool = False
    map: str | None = Field(None, description="digest of the map; null: there is none")
    sentence: str = ""
    created: str | None = None
    backbone: str = ""
    method: str = ""
    levels: list[str] = []
    version: int = 0
    base: str = ""
    edited: bool = False
    can_undo: bool = False
    can_redo: bool = False
    conflicts: int = 0
    settings: dict[str, Any] = {}
    why_no_words: str | None = Field(None, description="why no images are found by words; null: they are")
    is_free_text: bool = Field(False, description="whether words may be any text, and scores are cosines with it")


class OtherGuess(BaseModel):
    name: str
    strength: float


class Guess(BaseModel):
    name: str
    strength: float = Field(description="how much of it there is, and more than elsewhere, in nats")
    others: list[OtherGuess] = Field(description="other words for what is there, strongest first")


class Majority(BaseModel):
    label: str
    share: float


class Cluster(BaseModel):
    id: int
    name: str | None = Field(description="that a person gave")
    guess: Guess | None = Field(description="what it may show, in a word")
    size: int
    unsure: int
    confidence: float
    silhouette: float | None
    prototypes: list[int] | None = Field(description="null: among many clusters, /api/prototypes tells them")
    majority: Majority | None
    noise: bool
    edited: bool
    parent: int | None = Field(None, description="at level fine, the chosen cluster it is a part of")
    children: list[int] = Field([], description="at level coarse, the chosen clusters in it")


class Clusters(BaseModel):
    version: int
    base: str
    guesses_follow: bool = Field(description="some guesses are not made yet: /api/guesses has them all")
    clusters: list[Cluster]


class Prototypes(BaseModel):
    id: int
    prototypes: list[int]


class PrototypeList(BaseModel):
    version: int
    base: str
    clusters: list[Prototypes]


class Guessed(BaseModel):
    id: int
    guess: Guess


class GuessList(BaseModel):
    version: int
    base: str
    guesses: list[Guessed]


class ClusterImage(BaseModel):
    id: int
    confidence: float
    unsure: bool
    runner_up: int | None
    duplicate: bool
    moved: bool


class ClusterImages(BaseModel):
    version: int
    total: int
    images: list[ClusterImage]


class Probability(BaseModel):
    cluster: int
    p: float


class Neighbour(BaseModel):
    id: int
    similarity: float
    cluster: int


class Image(BaseModel):
    id: int
    path: str
    status: str
    reason: str | None
    width: int | None
    height: int | None
    cluster: int | None = None
    confidence: float | None = None
    unsure: bool = False
    moved: bool = False
    runner_up: int | None = None
    silhouette: float | None = None
    probabilities: list[Probability] = []
    duplicates: list[int] = []
    neighbours: list[Neighbour] = []
    label: str | None = None


class Called(BaseModel):
    """What a cluster is called."""

    id: int
    name: str | None = Field(description="that a person gave")
    guess: Guess | None = Field(description="what it may show, in a word")


class UploadMatch(BaseModel):
    cluster: int
    confidence: float
    unknown: bool
    unsure: bool
    runner_up: int | None
    called: list[Called] = Field(description="the clusters that it speaks of")
    neighbours: list[Neighbour]


class FoundByWords(BaseModel):
    version: int
    total: int = Field(description="images that the words fit at all")
    images: list[Fitting] = Field(description="those that they fit best, first")
    notes: list[str] = Field(description="on words that mean several things, or are said otherwise here")
    unknown: list[Unknown] = Field(description="words that are not known, for which nothing is looked for")


class Fitting(BaseModel):
    id: int
    score: float = Field(description="how well the words fit it, 0 to 1")
    cluster: int


class Unknown(BaseModel):
    text: str
    near: list[str] = Field(description="known words near it, the nearest first")


class Quality(BaseModel):
    clusters: int
    images: int
    unsure: int
    moved: int
    confidence: float
    confidence_histogram: list[int] = Field(description="images by confidence, in twenty equal steps from 0 to 1")
    silhouette: float | None = Field(description="of the images that no correction has touched")
    silhouette_images: int


class SkippedFile(BaseModel):
    id: int
    path: str
    status: str
    reason: str


class Reason(BaseModel):
    reason: str
    count: int


class Stage(BaseModel):
    state: str | None
    seconds: float | None
    facts: dict[str, Any] | None


class Evidence(BaseModel):
    choose_k: list[dict[str, bool | int | float | None]] = Field(description="one row a number of clusters looked at")
    sentence: str
    quality: Quality
    metrics: dict[str, Any] | None = Field(description="beside the labels of the source, if it has any")
    skipped: list[SkippedFile] = Field(description="those with the rarest reasons first")
    skipped_total: int
    skipped_reasons: list[Reason] = Field(description="the commonest ones")
    duplicates: list[list[int]] = Field(description="groups of equal files, the original first")
    duplicates_total: int
    stages: dict[str, Stage]


class EditLine(BaseModel):
    n: int
    op: str
    ids_count: int
    clusters: list[int]
    names: list[str]
    time: str
    undone: bool
    earlier: bool = Field(description="made on another clustering, whose numbers it speaks of")
    conflict: str | None


class Edits(BaseModel):
    version: int
    base: str
    can_undo: bool
    can_redo: bool
    edits: list[EditLine]


class Changed(BaseModel):
    version: int
    base: str
    changed: list[int]


class Part(BaseModel):
    size: int
    prototypes: list[int]
    guess: Guess | None = Field(description="what it may show, in a word")
    ids: str = Field(description="as in edits.jsonl: 3,5-9")


class SplitPreview(BaseModel):
    token: str
    version: int
    parts: list[Part]


class JobStarted(BaseModel):
    job: str


class JobState(BaseModel):
    job: str
    kind: str
    state: Literal["running", "done", "failed"]
    progress: float
    message: str
    file: str | None = Field(description="name of the file that /api/jobs/{job}/file gives, once done")


class Version(BaseModel):
    version: int
    base: str


class Error(BaseModel):
    error: str
