"""Make the images of `shoal demo`: 2,000 of Fashion-MNIST's test images, 200 of each class, as one small Parquet file.

Fashion-MNIST is Zalando Research's, under the MIT licence. Its files lie where Debian's package
`dataset-fashion-mnist` puts them; run: python bench/demo_data.py /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
PER_CLASS = 200
TARGET = Path(__file__).parents[1] / "src" / "shoal" / "data" / "fashion-mnist-2000.parquet"


def main(folder: Path) -> None:
    images = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = images.reshape(-1, 28, 28)
    rows: list[tuple[str, bytes, str]] = []
    for number, name in enumerate(CLASSES):
        for place in np.flatnonzero(labels == number)[:PER_CLASS]:
            rows.append((f"{name}/{place:05d}.png", _png(images[place]), name))
    rows.sort()
    paths, data, names = zip(*rows, strict=True)
    pq.write_table(pa.table({"path": paths, "image": data, "label": names}), TARGET, compression="zstd")
    print(f"{TARGET}: {len(rows)} images, {TARGET.stat().st_size / 2**20:.2f} MiB")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
