"""Publishing to the Hub: one commit, private unless asked, and only over what Shoal has published there before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoal.errors import RequestError
from shoal.hub import NO_TOKEN, SCHEME, fetch, speaking_of
from shoal.publication import MANIFEST, Manifest
from shoal.publish.folder import CARD
from shoal.rundir import digest_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MADE_BY_HUB: Final = frozenset({".gitattributes"})
MESSAGE: Final = "Publish with Shoal"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the Hub has under the name already: its commit, and the files that Shoal published there."""

    commit: str
    files: frozenset[str]


def look(api: HfApi, repo: str, public: bool) -> Earlier | None:
    """What is there already; None if nothing is.

    Raises:
        RequestError: there is no token, or something is there that must not be written over.
        WorkError: the Hub cannot be reached.
    """
    from huggingface_hub import get_token  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    name = f"{SCHEME}{repo}"
    if not (api.token or get_token()):
        raise RequestError(f"publishing to {name} needs a token of yours: {NO_TOKEN}")
    with speaking_of(repo):
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401:  # of a token that it does not know
                api.whoami()
            return None
        found = {one.rfilename for one in info.siblings or []} - MADE_BY_HUB
        if found and MANIFEST not in found:
            raise RequestError(f"{name} exists already and was not published by Shoal; expected another name")
        if info.private == public:
            is_public, other = ("public", "private") if public else ("private", "public")
            hint = "choose another name" if public else "add --public if everybody may see the new version too"
            raise RequestError(f"{name} exists already and is {other}, not {is_public}; {hint}")
        files = frozenset(_published(api, repo, str(info.sha)) & found) if found else frozenset()
    return Earlier(str(info.sha), files)


def push(api: HfApi, repo: str, folder: Path, public: bool, earlier: Earlier | None) -> None:
    """Put the files of `folder` there in one commit; what an earlier publication had besides goes.

    Raises:
        RequestError: the Hub refuses. WorkError: it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

    names = sorted(path.name for path in folder.iterdir())
    gone = sorted((earlier.files if earlier else frozenset()) - set(names))
    with speaking_of(repo):
        if earlier is None:
            api.create_repo(repo, private=not public)
        api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, str(folder / name)) for name in names),
                *(CommitOperationDelete(name) for name in gone),
            ],
            commit_message=MESSAGE,
            parent_commit=earlier.commit if earlier else None,
        )


def _published(api: HfApi, repo: str, commit: str) -> set[str]:
    """The files of the publication that is there. Raises RequestError if its card was edited since."""

    def file(name: str) -> Path:
        return Path(fetch(lambda place: api.hf_hub_download(repo, name, revision=commit, cache_dir=place)))

    manifest = Manifest.read(file(MANIFEST))
    if manifest is None:
        raise RequestError(f"{SCHEME}{repo} exists already and was not published by Shoal; expected another name")
    if CARD in manifest.files and digest_file(file(CARD)) != manifest.files[CARD]:
        raise RequestError(f"the card of {SCHEME}{repo} was edited there since; delete or rename its {CARD} first")
    return {*manifest.files, MANIFEST}
