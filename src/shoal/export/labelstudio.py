"""Label Studio's import format: one task an image, its cluster as a prediction to be confirmed or corrected.

Images on this machine are addressed through Label Studio's local file serving, relative to a document root; images in
a bucket or on a server by their own address.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from shoal.errors import RequestError
from shoal.export.placement import own_file
from shoal.export.rows import Row, names_of_clusters

LOCAL_FILES = "/data/local-files/?d="
SERVED_SCHEMES = ("http://", "https://", "s3://", "gs://", "azure-blob://")
CHOICE = "cluster"
IMAGE = "image"


def document_root(rows: Sequence[Row]) -> Path | None:
    """The folder above all images that are files here, or None if there are none.

    It is the parent of their common folder, since Label Studio wants a storage to lie below its document root.
    """
    folders = {path.parent for path in (own_file(row.uri) for row in rows) if path is not None}
    if not folders:
        return None
    try:
        return Path(os.path.commonpath(folders)).parent
    except ValueError as error:  # several drives of Windows
        raise RequestError(f"the images have no common folder, which Label Studio needs: {error}") from error


def tasks_json(rows: Sequence[Row], root: Path | None) -> bytes:
    """The tasks, each with a single choice and the cluster's confidence as its score."""
    names = names_of_clusters(rows)
    tasks = [
        {
            "data": {IMAGE: _address(row, root), "path": row.path, "unsure": row.unsure},
            "predictions": [
                {
                    "model_version": f"shoal {metadata.version('shoal')}",
                    "score": row.confidence,
                    "result": [
                        {
                            "id": f"shoal-{row.id}",
                            "from_name": CHOICE,
                            "to_name": IMAGE,
                            "type": "choices",
                            "value": {"choices": [names[row.cluster]]},
                        }
                    ],
                }
            ],
        }
        for row in rows
    ]
    return json.dumps(tasks, ensure_ascii=False, indent=1).encode()


def config_xml(rows: Sequence[Row]) -> bytes:
    """The labelling interface that fits the tasks: paste it into the project's settings."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names_of_clusters(rows).values())
    return (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CHOICE}" toName="{IMAGE}" choice="single">\n{choices}  </Choices>\n</View>\n'
    ).encode()


def _address(row: Row, root: Path | None) -> str:
    path = own_file(row.uri)
    if path is not None and root is not None:
        relative = path.relative_to(root)
        return LOCAL_FILES + quote(os.fsencode(relative.as_posix()))
    if row.uri.startswith(SERVED_SCHEMES) and "#" not in row.uri:
        return row.uri
    raise RequestError(
        f"Label Studio has no way to open {row.path} ({row.uri}), which lies in a table or a tar: write the images out "
        "with --to folders, cluster that folder, and export that run"
    )
