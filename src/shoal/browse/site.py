"""What one server holds: the run, pictures, jobs; or only a model."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from shoal import draft
from shoal.browse.errors import MissingError
from shoal.browse.guesses import GuessReader
from shoal.browse.jobs import Jobs
from shoal.browse.labels import LabelReader, Labels
from shoal.browse.map import MapReader
from shoal.browse.models import FinderReader, ModelReader
from shoal.browse.prototypes import Prototypes
from shoal.browse.run_view import RunView
from shoal.browse.search import Searcher
from shoal.browse.security import Access
from shoal.browse.snapshot import Snapshot
from shoal.browse.splitting import Previews
from shoal.pictures.pictures import Pictures
from shoal.rundir import RunDir


@dataclass(eq=False)
class OpenedRun:
    """A run, and what is made of it for the page."""

    view: RunView
    pictures: Pictures
    prototypes: Prototypes
    labels: LabelReader
    models: ModelReader
    finders: FinderReader
    previews: Previews
    maps: MapReader
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # by digest of the clusters
    guesses: GuessReader = field(default_factory=GuessReader)
    listing: threading.Lock = field(default_factory=threading.Lock)
    cluster_lists: WeakKeyDictionary[Snapshot, dict[tuple[str, Labels, bool], bytes]] = field(
        default_factory=WeakKeyDictionary
    )

    @classmethod
    def open(cls, root: Path) -> OpenedRun:
        """Raises RunError if there is no finished run."""
        draft.show_current(root)
        run_dir = RunDir.open(root)
        run_dir.require("index", "embed", "cluster")
        view = RunView(run_dir)
        return cls(
            view,
            Pictures(run_dir),
            Prototypes(),
            LabelReader(),
            ModelReader(),
            FinderReader(),
            Previews(),
            MapReader(),
        )


@dataclass(eq=False)
class Site:
    """`run` is None where a model folder was opened."""

    folder: Path
    access: Access
    run: OpenedRun | None
    searcher: Searcher
    jobs: Jobs = field(default_factory=Jobs)

    def opened_run(self) -> OpenedRun:
        """Raises MissingError where there is only a model."""
        if self.run is None:
            raise MissingError(f"{self.folder} is a model without a run; only search works on it")
        return self.run
