"""How commands, counts and the system's errors are told to the person."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import Final

_NEEDS_NO_QUOTES: Final = re.compile(r"[\w@%+=:,./\\-]+")


def command(*words: object, windows: bool = os.name == "nt") -> str:
    """A command as the shell of this machine takes it: words that hold blanks, `&` and the like are quoted."""
    texts = [str(word) for word in words]
    return " ".join(map(_quoted_for_windows, texts)) if windows else shlex.join(texts)


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 image`, `1,800 images`, `2 copies`."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def in_words(error: BaseException, letters: int = 120) -> str:
    """What went wrong, on one line, without the numbers and brackets of the system: `Name or service not known`."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = re.sub(r"^\[[^]]*\]\s*", "", " ".join(said.split()))
    return text[:letters] or re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()


def _quoted_for_windows(word: str) -> str:
    quoted = subprocess.list2cmdline([word])
    if quoted.startswith('"') or _NEEDS_NO_QUOTES.fullmatch(word):
        return quoted
    ends = len(word) - len(word.rstrip("\\"))  # backslashes before a quotation mark count double
    return f'"{word}{word[len(word) - ends :]}"'
