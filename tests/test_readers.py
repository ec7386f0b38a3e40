"""Two processes read a run while another one clusters it again and again: each look is at one generation."""

from __future__ import annotations

import hashlib
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from pictures import paint
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.corrections.corrected import read_corrected
from shoal.corrections.model import corrected_model
from shoal.embeddings import EmbeddingStore
from shoal.images.sources import open_source
from shoal.neighbours.query import nearest
from shoal.progress import Progress
from shoal.rundir import RunDir

ROUNDS = 8
NUMBERS = ("3", "2")


def cluster(base: Path, clusters: str) -> None:
    config = ClusterConfig((str(base / "pictures"),), clusters=clusters)
    pipeline.run(config, RunDir(base / "run"), pipeline.clustering_stages(open_source(config.source)), Progress())


def look(root: Path) -> str:
    """Read what `similar` reads, and all other files too; a digest of everything."""
    run = RunDir.open(root)
    corrected = read_corrected(run)
    assert corrected_model(run, corrected).model.space.dim == EmbeddingStore.open(run.embeddings).dim
    images = run.read_images(["id"])["id"].to_numpy()
    assert set(corrected.ids.tolist()) <= set(images.tolist())
    store = EmbeddingStore.open(run.embeddings)
    found, _ = nearest(store, corrected.ids, store.read(corrected.ids[:1]), 3)
    assert set(found[0].tolist()) <= set(images.tolist())
    assert run.generation is not None
    names = sorted(run.generation.places)
    return hashlib.sha256(b"".join(run.path(name).read_bytes() for name in names)).hexdigest()


def keep_looking(root: Path, told: Connection) -> None:
    """Look until told to end; then send every digest that was seen, in order."""
    seen = [look(root)]
    told.send("ready")
    while not told.poll():
        seen.append(look(root))
    told.send(seen)


def test_nobody_ever_reads_a_mixture(tmp_path: Path) -> None:
    paint(tmp_path / "pictures", each=4)
    known = []
    for clusters in NUMBERS[::-1]:
        cluster(tmp_path, clusters)
        known.append(look(tmp_path / "run"))
    context = multiprocessing.get_context("spawn")
    readers = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=keep_looking, args=(tmp_path / "run", theirs))
        process.start()
        theirs.close()
        readers.append((process, ours))
    for _, ours in readers:
        assert ours.recv() == "ready"
    for number in range(ROUNDS):
        cluster(tmp_path, NUMBERS[(number + 1) % 2])
    for process, ours in readers:
        ours.send("end")
        seen = ours.recv()
        process.join()
        assert process.exitcode == 0
        assert set(seen) <= set(known)
        assert len(seen) > 1
