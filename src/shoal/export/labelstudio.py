"""Label Studio's import format: one task an image, its cluster as a prediction to be confirmed or corrected.

Images on this machine are addressed through Label Studio's local file serving, relative to a document root; images in
a bucket or on a server by their own address.
"""

from __future__ import annotations

import io
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from shoal.errors import RequestError
from shoal.export.placement import own_file
from shoal.export.rows import Row, Rows

LOCAL_FILES = "/data/local-files/?d="
SERVED_SCHEMES = ("http://", "https://", "s3://", "gs://", "azure-blob://")
CHOICE = "cluster"
IMAGE = "image"


def document_root(rows: Rows) -> Path | None:
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


def tasks_json(rows: Rows, root: Path | None) -> bytes:
    """The tasks, each with a single choice and the cluster's confidence as its score."""
    names, version = rows.names_of_clusters(), f"shoal {metadata.version('shoal')}"
    written = io.BytesIO()
    for number, row in enumerate(rows):
        task = json.dumps(_task(row, names[row.cluster], version, root), ensure_ascii=False, indent=1)
        written.write(f"{',' if number else '['}\n {task.replace(chr(10), chr(10) + ' ')}".encode())
    written.write(b"\n]" if len(rows) else b"[]")
    return written.getvalue()


def _task(row: Row, name: str, version: str, root: Path | None) -> dict[str, Any]:
    return {
        "data": {IMAGE: _address(row, root), "path": row.path, "unsure": row.unsure},
        "predictions": [
            {
                "model_version": version,
                "score": row.confidence,
                "result": [
                    {
                        "id": f"shoal-{row.id}",
                        "from_name": CHOICE,
                        "to_name": IMAGE,
                        "type": "choices",
                        "value": {"choices": [name]},
                    }
                ],
            }
        ],
    }


def config_xml(rows: Rows) -> bytes:
    """The labelling interface that fits the tasks: paste it into the project's settings."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in rows.names_of_clusters().values())
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
