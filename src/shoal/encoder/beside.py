"""What an encoder came with, kept beside it: by which its features tell classes, or are compared with texts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol


class Beside(Protocol):
    """A file of its own in the folder of a prepared encoder."""

    file: ClassVar[str]

    @property
    def nbytes(self) -> int:
        """Of its tensors."""

    def save(self, folder: Path) -> None: ...
