"""Models on the Hugging Face Hub, called hf://OWNER/NAME: their names, how they are fetched, its errors in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shoal import cache
from shoal.errors import RequestError, RunError, ShoalError, WorkError
from shoal.progress import Progress
from shoal.runfiles import GUESSES
from shoal.wording import in_words

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

SCHEME: Final = "hf://"
VARIABLE: Final = "HF_HOME"  # moves the folder of its client
EXPECTED: Final = "hf://OWNER/NAME, of letters, digits, '-', '_' and '.'"
# What opening a model reads. Named one by one: a mistyped name is not to bring somebody else's many gigabytes.
ENCODER_FILES: Final = ("encoder.safetensors", "encoder.onnx")  # a model has one of them
MODEL_FILES: Final = (
    "config.json",
    *ENCODER_FILES,
    "clusters.json",
    "clusters.safetensors",
    "names.json",
    GUESSES,
)
LETTERS: Final = 200  # of what the Hub says
NO_TOKEN: Final = "log in with `hf auth login`, or set HF_TOKEN"


def is_on_hub(place: str | Path) -> bool:
    """True for hf://…; a Path made of it has lost one of the slashes."""
    return re.match(r"hf:[/\\]", str(place)) is not None


def repository(address: str | Path) -> str:
    """OWNER/NAME of hf://OWNER/NAME.

    Raises:
        RequestError: it has another form, or a character that the Hub does not take.
    """
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415  (only who names the Hub pays for its client)
    from huggingface_hub.utils import validate_repo_id  # noqa: PLC0415

    parts = [part for part in re.split(r"[/\\]", str(address).removeprefix("hf:")) if part]
    repo = "/".join(parts)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RequestError(
            f"{str(address)!r} is no name of a model on the Hub ({error}); expected {EXPECTED}"
        ) from error
    if len(parts) != 2:
        raise RequestError(f"{str(address)!r} is no name of a model on the Hub; expected {EXPECTED}")
    return repo


def client() -> HfApi:
    """Speaks to the Hub, or to what HF_ENDPOINT names, with the person's own token if there is one."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    return HfApi(library_name="shoal")


def model_place(place: str | Path, progress: Progress | None = None) -> Path:
    """Where a run or model lies on this machine: `place` itself, or where the Hub's files were put.

    Fetched once, and again when the Hub has a newer one; without a network, what was fetched before serves.

    Raises:
        RequestError: a name that cannot be, or that there is not. RunError: it holds no model of Shoal's.
        WorkError: the Hub cannot be reached.
    """
    if not is_on_hub(place):
        return Path(place)
    repo = repository(place)
    (progress or Progress()).say(f"Fetching {SCHEME}{repo} …")
    with speaking_of(repo):
        api = client()
        folder = Path(
            fetch(lambda place: api.snapshot_download(repo, allow_patterns=list(MODEL_FILES), cache_dir=place))
        )
    if not (folder / MODEL_FILES[0]).is_file() or not any((folder / name).is_file() for name in ENCODER_FILES):
        raise RunError(
            f"{SCHEME}{repo} holds no model of Shoal's: it has no {MODEL_FILES[0]} and {' or '.join(ENCODER_FILES)}"
        )
    return folder


def fetch(call: Callable[[Path | None], T]) -> T:
    """What `call` fetches from the Hub into its client's cache (None) or, where that cannot be written, another folder.

    Raises:
        Whatever `call` raises.
    """
    try:
        return call(None)
    except Exception as error:  # some are of the disk, whatever their class
        if not cache.is_of_the_disk(error):
            raise
        return call(cache.instead_of(cache_folder(), cache.words_of(error), VARIABLE) / "hub")


def cache_folder() -> Path:
    """Where the Hub's client keeps what it fetched."""
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_HUB_CACHE)


@contextmanager
def speaking_of(repo: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into one line about hf://`repo`; its bars show on a terminal only."""
    from huggingface_hub import utils  # noqa: PLC0415

    hush = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if hush:
        utils.disable_progress_bars()
    try:
        yield
    except ShoalError:
        raise
    except Exception as error:  # its HTTP client's errors are of a library that changes with its version
        raise _told(error, f"{SCHEME}{repo}") from error
    finally:
        if hush:
            utils.enable_progress_bars()


def _told(error: Exception, name: str) -> ShoalError:
    from huggingface_hub import constants, errors  # noqa: PLC0415

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # of an upload in one of its threads
    if isinstance(error, errors.GatedRepoError):
        return RequestError(f"{name} is for those whom its owner has let in; ask on its page, then {NO_TOKEN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RequestError(f"there is no model {name}, or it is private and not yours: {NO_TOKEN}")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, name)
    if isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        return WorkError(f"{name} cannot be reached while HF_HUB_OFFLINE is set")
    if isinstance(error, ValueError):  # a card or a file that the Hub does not take
        return WorkError(f"the Hub does not take {name}: {_first(error)}")
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    return WorkError(
        f"{name} could not be reached at {constants.ENDPOINT} ({in_words(cause, LETTERS)}); is there a network?"
    )


def _refused(error: Any, name: str) -> ShoalError:
    status, said = error.response.status_code, error.server_message or _first(error)
    if status == 401:
        return RequestError(f"the Hub does not know your token ({said}): {NO_TOKEN}")
    if status == 403:
        return RequestError(f"your token may not write {name} ({said}); it needs the right to, and OWNER be yours")
    if status == 409:
        return RequestError(f"{name} exists already, or somebody is changing it right now ({said}); try again")
    if status in (400, 412, 422):
        return WorkError(f"the Hub does not take {name}: {said}")
    return WorkError(f"the Hub answered {status} for {name}: {said}; try again later")


def _first(error: BaseException) -> str:
    """The error's text without empty lines, cut."""
    return (" ".join(str(error).split()) or type(error).__name__)[:LETTERS]
