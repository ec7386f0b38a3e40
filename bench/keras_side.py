"""The Keras example "Semantic Image Clustering" under the clock. Runs in an environment of its own: no Shoal, no torch.

Written from the settings that the example tells (encoder, views, heads, losses, optimisers, batches), for its speed
alone: the images are random. Prints one JSON line: seconds of each step that counts, by the clock and of processor
time, of the pretext task and of clustering with the encoder frozen.

    python bench/keras_side.py PRETEXT_STEPS CLUSTERING_STEPS
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BATCH, SIDE, NEIGHBOURS, CLUSTERS = 512, 32, 5, 20
TEMPERATURE, ENTROPY_WEIGHT = 0.1, 5.0


def main() -> None:
    pretext_steps, clustering_steps = int(sys.argv[1]), int(sys.argv[2])
    encoder, views = make_encoder(), make_views()
    found = {
        "batch": BATCH,
        "neighbours": NEIGHBOURS,
        "pretext": pretext_seconds(encoder, views, pretext_steps),
        "clustering": clustering_seconds(encoder, views, clustering_steps),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    print(json.dumps(found))


def make_views() -> keras.Sequential:
    return keras.Sequential(
        [
            layers.RandomTranslation((-0.2, 0.2), (-0.2, 0.2), fill_mode="nearest"),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.15, fill_mode="nearest"),
            layers.RandomZoom((-0.3, 0.1), (-0.3, 0.1), fill_mode="nearest"),
        ]
    )


def make_encoder() -> keras.Model:
    """ResNet50V2 without top, average-pooled, and a dense layer of 512 features."""
    backbone = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), pooling="avg"
    )
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone, layers.Dense(512)])


# -- pretext task ------------------------------------------------------------------------------------------------------


class Contrastive(keras.Model):
    """Two views an image, each through encoder and projection; every view against all others."""

    def __init__(self, encoder: keras.Model, views: keras.Model) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views
        self.head = keras.Sequential(
            [layers.Dropout(0.1), layers.Dense(128, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        )

    def call(self, images: Any, training: bool = False) -> Any:
        """[2B, 128]."""
        projections = [self.head(self.encoder(self.views(images), training=training), training=training) for _ in "ab"]
        return ops.concatenate(projections)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        unit = ops.normalize(y_pred, axis=1)
        count = ops.shape(unit)[0]
        logits = ops.matmul(unit, ops.transpose(unit)) / TEMPERATURE - 1e9 * ops.eye(count)
        twins = ops.roll(ops.arange(count), count // 2)
        return ops.mean(keras.losses.sparse_categorical_crossentropy(twins, logits, from_logits=True))


def pretext_seconds(encoder: keras.Model, views: keras.Model, steps: int) -> dict[str, list[float]]:
    model = Contrastive(encoder, views)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=500, alpha=0.1)
    model.compile(optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4))
    images = random_images(BATCH)
    return timed_fit(model, images, np.zeros(BATCH, np.float32), steps)


# -- clustering --------------------------------------------------------------------------------------------------------


class Clustering(keras.Model):
    """Softmax clusters of an anchor and of its neighbours, all as views; the encoder stays as it is."""

    def __init__(self, encoder: keras.Model, views: keras.Model) -> None:
        super().__init__()
        encoder.trainable = False
        self.encoder, self.views = encoder, views
        self.head = layers.Dense(CLUSTERS, activation="softmax")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """[B, 1 + neighbours, K]; inputs [B, 1 + neighbours, s, s, 3], the anchor first."""
        flat = ops.reshape(inputs, (-1, SIDE, SIDE, 3))
        found = self.head(self.encoder(self.views(flat)))
        return ops.reshape(found, (-1, 1 + NEIGHBOURS, CLUSTERS))

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        anchors, neighbours = y_pred[:, 0], y_pred[:, 1:]
        alike = ops.einsum("bk,bnk->bn", anchors, neighbours)
        consistency = keras.losses.binary_crossentropy(ops.ones_like(alike), alike, from_logits=True)
        mean = ops.mean(anchors, axis=0)
        entropy = -ops.sum(mean * ops.log(mean + 1e-8))
        return ops.mean(consistency) + ENTROPY_WEIGHT * (np.log(CLUSTERS) - entropy)


def clustering_seconds(encoder: keras.Model, views: keras.Model, steps: int) -> dict[str, list[float]]:
    model = Clustering(encoder, views)
    model.compile(optimizer=keras.optimizers.AdamW(5e-4, weight_decay=1e-4))
    images = random_images(BATCH * (1 + NEIGHBOURS)).reshape(BATCH, 1 + NEIGHBOURS, SIDE, SIDE, 3)
    return timed_fit(model, images, np.zeros(BATCH, np.float32), steps)


# -- the clock ---------------------------------------------------------------------------------------------------------


class Clock(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[float, float]] = []
        self._began = (0.0, 0.0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._began = (time.perf_counter(), time.process_time())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        wall, processor = self._began
        self.steps.append((time.perf_counter() - wall, time.process_time() - processor))


def timed_fit(model: keras.Model, inputs: Any, targets: Any, steps: int) -> dict[str, list[float]]:
    """Seconds of each of `steps` steps of `fit`, after one that compiles and is not counted."""
    clock = Clock()
    data = tf.data.Dataset.from_tensors((inputs, targets)).repeat(steps + 1)
    model.fit(data, epochs=1, verbose=0, callbacks=[clock])
    wall, processor = zip(*clock.steps[1:], strict=True)
    return {"wall": [round(value, 4) for value in wall], "processor": [round(value, 4) for value in processor]}


def random_images(count: int) -> Any:
    return np.random.default_rng(0).normal(size=(count, SIDE, SIDE, 3)).astype(np.float32)


if __name__ == "__main__":
    main()
