"""How long the pooled features of each embedded network are, before `--features best` makes them of unit length.

    python bench/feature_lengths.py tinyimagenet-20.parquet

Of each network: mean and standard deviation over images of the length of the mean of the features of an image and of
its mirror image, which is what `best` divides by; and of how often the joined classifier, which takes one mean length
for all images, has the same likeliest class as one that knows each length.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np

from machine import write_result
from shoal.embed.newcomers import embed_items
from shoal.embeddings import Float32
from shoal.encoder import classifier, embedded, lite, weights
from shoal.encoder.engines import OpenVinoEngine
from shoal.images.sources import Source, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="images looked at [default: 1000]")
    asked = parser.parse_args()
    source = open_source(tuple(asked.source))
    found, known, joined = {}, [], []
    for one, path in weights.embedded_files("best"):
        layer = classifier.of_network(one.architecture, path)
        rows = features(one.architecture, path, source, asked.limit)
        lengths = np.linalg.norm(rows, axis=1)
        found[one.architecture] = {"mean": float(lengths.mean()), "deviation": float(lengths.std())}
        known.append(rows @ layer.weight.T + layer.bias)
        joined.append(rows / lengths[:, None] * lengths.mean() @ layer.weight.T + layer.bias)
        print(one.architecture, found[one.architecture])
    agree = np.mean(np.mean(known, axis=0).argmax(axis=1) == np.mean(joined, axis=0).argmax(axis=1))
    print(f"the same likeliest class: {agree:.3f} of {len(rows):,} images")
    write_result("feature-lengths", {"images": len(rows), "same_likeliest_class": float(agree), **found})


def features(architecture: str, path: Path, source: Source, limit: int) -> Float32:
    tensors = lite.named(weights.read_tensors(path), architecture, "best")
    alone = embedded.find("default", "crop", None).spec
    spec = dataclasses.replace(alone, architecture=architecture, features="best", size=lite.SCALES[architecture].size)
    with tempfile.TemporaryDirectory() as folder:
        embedded.EmbeddedEncoder(spec, tensors).convert(Path(folder) / "model.xml")
        engine = OpenVinoEngine(Path(folder) / "model.xml", "fp32")
        items = itertools.islice(source.listed().items(), limit)
        return np.concatenate([batch.features for batch in embed_items(engine, spec, items, source.spool)])


if __name__ == "__main__":
    main()
