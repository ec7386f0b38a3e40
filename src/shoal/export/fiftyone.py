"""The `FiftyOneImageClassificationDataset` format: `data/` and `labels.json`, written without FiftyOne.

Read it with `fiftyone.Dataset.from_dir(DEST, fiftyone.types.FiftyOneImageClassificationDataset)`.
"""

from __future__ import annotations

import json

from shoal.export.placement import Plan

LABELS_NAME = "labels.json"


def labels_json(plan: Plan, names: dict[int, str]) -> bytes:
    """Each image's cluster as its label; keys are the names in `data/` without extension, as FiftyOne has them."""
    index = {number: position for position, number in enumerate(names)}
    labels = {
        placement.target.stem: {
            "label": index[placement.row.cluster],
            "confidence": placement.row.confidence,
            "attributes": {
                "unsure": placement.row.unsure,
                "runner_up": None if placement.row.runner_up is None else names.get(placement.row.runner_up),
                "silhouette": placement.row.silhouette,
                "source_path": placement.row.path,
                "duplicate_of": placement.row.duplicate_of,
            },
        }
        for placement in plan
    }
    return json.dumps({"classes": list(names.values()), "labels": labels}, ensure_ascii=False, indent=1).encode()
