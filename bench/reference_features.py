"""Keep the embedded networks' features of made images, as torch gives them, in src/shoal/encoder/reference.safetensors.

To be run again when the weights' packages, the made images or the networks change:
    python bench/reference_features.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from photos import WORK
from shoal.encoder import embedded, rebuilt, reference
from shoal.encoder.probes import probe_images
from shoal.encoder.torch_engine import TorchEngine


def main() -> None:
    kept = {}
    for features in ("default", "map", "logits", "best"):
        found = embedded.find(features, "crop", None)
        found.save(WORK / "encoder.safetensors")
        encoder, spec = rebuilt.rebuild(found.spec, WORK / "encoder.safetensors")
        state = {name: tensor.numpy() for name, tensor in encoder.model.state_dict().items()}
        rows = TorchEngine(encoder, spec, "cpu").infer(probe_images(spec.size)[: reference.IMAGES])
        if features == "map":
            rows = reference.sketch(rows)
        # In C's order: safetensors writes memory as it lies.
        kept[reference.name(state, features)] = rows.astype(np.float16, order="C")
        print(f"{features}: {len(rows)} images, {rows.shape[1]} dimensions")
    path = Path(reference.__file__).with_name(reference.FILE)
    save_file(kept, path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
