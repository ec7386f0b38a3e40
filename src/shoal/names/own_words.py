"""A vocabulary of one's own: a file with a word or phrase a line, which a text tower reads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shoal import foreign
from shoal.errors import ConfigError, RunError

FEWEST: Final = 2
MOST: Final = 1 << 16  # classes that a run can tell of
LONGEST: Final = 200  # characters of one


def read(name: str) -> tuple[str, ...]:
    """The words in the file that `--vocabulary` names, in its order, each once; empty lines are passed over.

    Raises:
        ConfigError: there is no such file, it is no text in UTF-8, or a line is no word.
    """
    path = Path(name).expanduser()
    try:
        lines = foreign.read_bytes(path).decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise _unfit(name, "which is not there") from error
    except (RunError, UnicodeDecodeError) as error:
        raise _unfit(name, f"which cannot be read ({error})") from error
    words: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        word = " ".join(line.split())
        if len(word) > LONGEST or not word.isprintable():
            raise _unfit(name, f"whose line {number} is longer than {LONGEST} characters or cannot be shown")
        if word:
            words.setdefault(word.casefold(), word)
    if not FEWEST <= len(words) <= MOST:
        raise _unfit(name, f"which has {len(words):,} words")
    return tuple(words.values())


def _unfit(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"--vocabulary has value {name!r}, {what}; expected a text file with a word or phrase a line, "
        f"{FEWEST} to {MOST:,} of them"
    )
