"""A key of the user's own, by which Shoal knows again what it wrote itself.

It lies in the user's state folder, never in a folder that it vouches for: whoever hands a folder over has it not.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import platformdirs

from shoal.export.transfer import rename_into_place

KEY_BYTES: Final = 32


def key_file() -> Path:
    """In $SHOAL_STATE, or in the user's state folder."""
    return Path(os.environ.get("SHOAL_STATE") or platformdirs.user_state_dir("shoal")) / "seal.key"


def read_key() -> bytes | None:
    """The key, or None if there is none yet, or none that can be read."""
    try:
        key = key_file().read_bytes()
    except OSError:
        return None
    return key if len(key) == KEY_BYTES else None


def own_key() -> bytes | None:
    """The key, made if there is none yet; None if there cannot be one."""
    if (key := read_key()) is not None:
        return key
    path = key_file()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(temporary, "xb", opener=_for_its_owner_alone) as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was quicker: its key is everybody's
                rename_into_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return None
    return read_key()


def seal(key: bytes, values: Sequence[str | int]) -> str:
    """What only the key's owner can write beside `values`: their HMAC-SHA-256, 64 hexadecimal digits."""
    return hmac.new(key, json.dumps(list(values)).encode(), hashlib.sha256).hexdigest()


def _for_its_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
