"""Licences as the Hub's metadata name them: https://huggingface.co/docs/hub/repositories-licenses."""

from __future__ import annotations

from typing import Final

from shoal.errors import RequestError

LONGEST: Final = 100
KNOWN: Final = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m",
    "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gemma",
    "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0",
    "lgpl-lr", "llama2", "llama3", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
    "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib", "unknown",
))  # fmt: skip


def metadata(licence: str | None) -> dict[str, str]:
    """Keys of the card's metadata for a licence as its publisher words it; none if nobody has chosen one.

    What the Hub does not know is `other`, with its name.
    """
    if licence is None:
        return {}
    name = licence.split(" (")[0].strip()
    for identifier in (name.lower(), name.lower().replace(" ", "-")):
        if identifier in KNOWN:
            return {"license": identifier}
    return {"license": "other", "license_name": name}


def checked(licence: str | None) -> str | None:
    """A licence as a person gave it. Raises RequestError if it is none that could be written down."""
    if licence is None:
        return None
    words = " ".join(licence.split())
    if not words or len(words) > LONGEST or not words.isprintable():
        raise RequestError(
            f"--license has value {licence!r}; expected a licence's name, such as apache-2.0 or cc-by-4.0"
        )
    return words
