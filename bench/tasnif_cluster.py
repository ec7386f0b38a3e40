"""The peer in bench/end_to_end.py: tasnif as its own documentation uses it. Runs in tasnif's environment.

Arguments: WEIGHTS PHOTOS CLUSTERS OUT. The weights come in by timm's own way to a local file, `pretrained_cfg_overlay`;
all else is tasnif's default. It writes its table and embeddings, but no copies of the photos and no preview pictures,
which is the least that it can be asked for.
"""

import sys

from tasnif import TasnifClusterer


def main(weights: str, photos: str, clusters: str, out: str) -> None:
    clusterer = TasnifClusterer(
        n_clusters=int(clusters),
        embedder="timm",
        embedder_kwargs={
            "model": "tf_efficientnet_lite0",
            "model_kwargs": {"pretrained_cfg_overlay": {"file": weights}},
        },
        show_progress=False,
    )
    clusterer.fit(photos)
    clusterer.export(out, mode="none", write_grid=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
