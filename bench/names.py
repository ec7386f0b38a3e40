"""How well clusters are named and images found by words, against labels, on the sets for comparing defaults.

    shoal bench cifar10 tinyimagenet-20 --data DATASETS --out bench.out
    python bench/names.py tinyimagenet-20=bench.out/tinyimagenet-20/efficientnet_lite0-default/train.shoal

Every name is printed. Then what must have no name: clusters of noise, of one-colour pictures and of pages of text, all
made here, alone and beside the images of the first run; and the time and memory for 100,000 images in 60 clusters.
Runs are of the embedded backbone's default features, whose classifier is read from its weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from machine import write_result
from shoal import pipeline
from shoal.bench.embedded import label_places, unit_features, usable_ids
from shoal.cluster import kmeans
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.encoder.classifier import Layer
from shoal.encoder.classifier import embedded as embedded_classifier
from shoal.images.sources import open_source
from shoal.names import finding, guesses, kinds, likeliest, words
from shoal.names.agreement import agrees
from shoal.progress import Progress
from shoal.rundir import RunDir

NULL_K, NULL_SEEDS = (4, 8, 16, 32), 3
NOISES = ("uniform", "normal", "grey", "salt-and-pepper", "blurred")
IMAGES, CLUSTERS = 100_000, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--null", type=int, default=80, metavar="N", help="made images of each kind [default: 80]")
    parser.add_argument("--seed", type=int, default=0, help="of the made images")
    asked = parser.parse_args()
    known, head = kinds.vocabulary(), embedded_classifier("default", None)
    assert known is not None
    assert head is not None
    found: dict[str, Any] = {}
    runs = {name: RunDir(Path(folder)) for name, folder in (text.split("=", 1) for text in asked.runs)}
    for name, run in runs.items():
        print(name)
        found[name] = named(run, head, known) | searched(run, head, known)
    first = next(iter(runs.values()))
    found["nothing"] = nameless(asked.null, asked.seed, first, head, known)
    found["scale"] = scale(known)
    for name, values in found.items():
        print(name, values)
    write_result("names", found)


def features(run: RunDir) -> tuple[Ids, Float32]:
    ids = usable_ids(run)
    return ids, EmbeddingStore.open(run.embeddings).read(ids)


def named(run: RunDir, head: Layer, known: kinds.Vocabulary) -> dict[str, float]:
    """Shares of images: in clusters with a name, with a name that agrees with most labels there, with their own."""
    ids, rows = features(run)
    table = pq.read_table(run.root / "clusters.parquet").to_pandas().set_index("id").loc[ids]
    labels, confidence = table["cluster"].to_numpy(), table["confidence"].to_numpy(np.float32)
    names, places = label_places(run, None, {})
    truth = np.full(len(ids), "", dtype=names.dtype)
    truth[places] = names
    shares = {"named": 0, "agrees_with_most": 0, "agrees_with_own": 0}
    for one in guesses.guess(likeliest.of_features([rows], head), labels, confidence, known):
        here, counts = np.unique(truth[labels == one.cluster], return_counts=True)
        own = [one.wnid is not None and bool(agrees(one.wnid, label, known)) for label in here]
        most = int(counts.argmax())
        shares["named"] += int(counts.sum()) * (one.name is not None)
        shares["agrees_with_most"] += int(counts.sum()) * own[most]
        shares["agrees_with_own"] += int(counts[own].sum())
        others = ", ".join(f"{other.word} {other.strength:.2f}" for other in one.others)
        told = f"{said(here[most], known)} {counts[most] / counts.sum():.2f}"
        mark = "--" if one.name is None else "ok" if own[most] else "XX"
        print(f"  {mark} {one.cluster:3} {told:24} {one.name or 'no name':28} {one.strength:.2f} | {others}")
    return {share: count / len(ids) for share, count in shares.items()}


def searched(run: RunDir, head: Layer, known: kinds.Vocabulary) -> dict[str, float]:
    """Mean average precision of a search for each label's word; those that no kind has are left out."""
    ids, rows = features(run)
    table = likeliest.of_features([rows], head)
    near = np.load(run.root / "neighbours" / "ids.npy")[ids]
    near = np.where(near >= 0, np.searchsorted(ids, near), -1)
    names, places = label_places(run, None, {})
    found = {}
    for label in np.unique(names):
        query = words.parse(f'"{said(label, known)}"', known)
        if query.terms and not query.unknown:
            scores = finding.scores(query, table, known, near)
            found[said(label, known)] = average_precision(scores[places], names == label)
    print("  found:", ", ".join(f"{word} {value:.2f}" for word, value in found.items()))
    return {"mean_average_precision": float(np.mean(list(found.values()))), "words": len(found)}


def said(label: str, known: kinds.Vocabulary) -> str:
    place = known.place(label)
    return label if place is None else known.said[place]


def average_precision(scores: Float32, is_right: npt.NDArray[np.bool_]) -> float:
    ranked = is_right[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


def nameless(count: int, seed: int, beside: RunDir, head: Layer, known: kinds.Vocabulary) -> dict[str, Any]:
    """Share of clusters without a name among made images that show nothing, alone and beside real ones."""
    with tempfile.TemporaryDirectory() as folder:
        run = embedded(Path(folder), count, seed)
        made, units = features(run)[1], unit_features(run)
    real = features(beside)[1]
    shares: dict[str, Any] = {}
    for place, rows in (("alone", made), ("beside_real_ones", np.concatenate([made, real]))):
        table, said_so, clusters = likeliest.of_features([rows], head), [], 0
        for k in NULL_K:
            for start in range(NULL_SEEDS):
                labels = kmeans.fit(units, k, np.random.default_rng([seed, start]), starts=2).labels.astype(np.int64)
                every = np.concatenate([labels, np.full(len(rows) - len(made), k)])
                told = guesses.guess(table, every, np.ones(len(every), np.float32), known)[:k]
                said_so += [one.name for one in told if one.name is not None]
                clusters += k
        shares[place] = 1 - len(said_so) / clusters
        shares[f"{place}_names"] = sorted(set(said_so))
    return shares


def embedded(folder: Path, count: int, seed: int) -> RunDir:
    source, run = folder / "made", RunDir(folder / "made.shoal")
    source.mkdir()
    for name, image in pictures(count, np.random.default_rng(seed)):
        image.save(source / f"{name}.png")
    config = ClusterConfig(source=(str(source),), clusters="2")
    stages = [
        one
        for one in pipeline.clustering_stages(open_source(config.source))
        if one.name in ("index", "embed", "images")
    ]
    pipeline.run(config, run, stages, Progress())
    return run


def pictures(count: int, random: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    lines = [line for line in Path(__file__).read_text(encoding="utf-8").splitlines() if line.strip()]
    for number in range(count):
        for kind in NOISES:
            yield f"{kind}-{number:04}", noise(kind, int(random.choice([32, 64, 128, 224, 400])), random)
        for part in range(3):
            colour = tuple(int(value) for value in random.integers(0, 256, 3))
            yield f"colour-{number:04}-{part}", Image.new("RGB", (int(random.integers(32, 400)),) * 2, colour)
        for part in range(2):
            yield f"text-{number:04}-{part}", page(lines, random)


def noise(kind: str, size: int, random: np.random.Generator) -> Image.Image:
    shape = (size, size, 3)
    if kind == "normal":
        pixels = np.clip(random.normal(128, random.uniform(10, 80), shape), 0, 255)
    elif kind == "grey":
        pixels = np.repeat(random.integers(0, 256, (size, size, 1)), 3, axis=2)
    elif kind == "salt-and-pepper":
        pixels = np.repeat((random.random((size, size, 1)) < random.uniform(0.05, 0.5)) * 255, 3, axis=2)
    else:
        pixels = random.integers(0, 256, shape)
    image = Image.fromarray(pixels.astype(np.uint8))
    if kind != "blurred":
        return image
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(1, 4))), np.float32)
    return Image.fromarray(((soft - soft.min()) / max(float(np.ptp(soft)), 1) * 255).astype(np.uint8))


def page(lines: list[str], random: np.random.Generator) -> Image.Image:
    """A screenshot of text: dark on light or light on dark."""
    is_dark = random.random() < 0.35
    ground, ink = (random.integers(low, high, 3) for low, high in ((0, 50), (180, 256)))
    ground, ink = (ground, ink) if is_dark else (ink // 8 + 223, ground)
    width, height = [(640, 480), (800, 600), (1024, 768), (600, 800), (1280, 720)][random.integers(5)]
    image = Image.new("RGB", (width, height), tuple(map(int, ground)))
    size, top = int(random.integers(11, 28)), int(random.integers(4, 40))
    draw, font, first = ImageDraw.Draw(image), ImageFont.load_default(size), int(random.integers(len(lines)))
    for row in range((height - top) // int(size * 1.35)):
        line = lines[(first + row) % len(lines)]
        draw.text((12, top + row * int(size * 1.35)), line, fill=tuple(map(int, ink)), font=font)
    return image


def scale(known: kinds.Vocabulary) -> dict[str, float]:
    """Seconds and most bytes to name 100,000 images in 60 clusters, and milliseconds of a search among them."""
    random = np.random.default_rng(0)
    blocks = (random.random((2000, 1000), dtype=np.float32) ** 8 for _ in range(IMAGES // 2000))
    table = likeliest.of_probabilities(block / block.sum(axis=1, keepdims=True) for block in blocks)
    labels, near = random.integers(0, CLUSTERS, IMAGES), random.integers(0, IMAGES, (IMAGES, 50), dtype=np.int32)
    tracemalloc.start()
    began = time.perf_counter()
    guesses.guess(table, labels, np.ones(IMAGES, np.float32), known)
    seconds, most = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    taken = []
    for query in ("bird", "penguin bus", "dog car -cat", "animal", "banana -orange") * 10:
        began, before = time.perf_counter(), time.process_time()
        finding.best(finding.scores(words.parse(query, known), table, known, near), 20)
        taken.append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - before)))
    wall, processor = np.quantile(np.array(taken), 0.95, axis=0).tolist()
    search = {"search_ms_p95": wall, "search_processor_ms_p95": processor}  # the first is higher on a busy machine
    return {"naming_seconds": seconds, "naming_bytes": most, **search}


if __name__ == "__main__":
    main()
