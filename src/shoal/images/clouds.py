"""Storage that fsspec reaches: its file systems by URI, and archives that lie anywhere."""

from __future__ import annotations

from typing import IO, Any, Final

from shoal.errors import DecodeError
from shoal.images.storage import NEEDS

PACKAGES: Final = {  # that fsspec needs for a protocol
    **{"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"},
    **{"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "hf": "huggingface_hub"},
}
MEMORY: Final = "memory"  # of this process, for tests
ARCHIVES: Final = ("zip", "tar")


def file_system(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it.

    Args:
        uri: of one of PACKAGES or MEMORY.

    Raises:
        DecodeError: its package is not installed.
    """
    import fsspec.core  # noqa: PLC0415  (a tenth of a second that local files need not wait for)

    protocol = uri.partition(":")[0]
    try:
        opened: tuple[Any, str] = fsspec.core.url_to_fs(uri)
        return opened
    except ImportError as error:
        package = PACKAGES[protocol]
        raise DecodeError(f"{NEEDS} {package} (pip install {package})") from error


def archive_system(kind: str, file: IO[bytes]) -> Any:
    """The file system of an open archive.

    Raises:
        DecodeError: it is none.
    """
    from fsspec.implementations.tar import TarFileSystem  # noqa: PLC0415  (as above)
    from fsspec.implementations.zip import ZipFileSystem  # noqa: PLC0415

    known = {"zip": ZipFileSystem, "tar": TarFileSystem}
    try:
        return known[kind](fo=file, skip_instance_cache=True)
    except Exception as error:  # each library has its own
        raise DecodeError(f"not readable as a {kind} file") from error
