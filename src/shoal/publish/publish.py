"""`shoal publish`: a run's model, with its card, into a folder or to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal import hub
from shoal.apart import require_outside_run, require_outside_source
from shoal.disk import require_free
from shoal.errors import RequestError
from shoal.progress import Progress
from shoal.publish import push
from shoal.publish.folder import Wanted, encoder_of, write
from shoal.publish.licences import checked
from shoal.publish.placing import check_replaceable, put
from shoal.rundir import RunDir
from shoal.wording import command

FIGURES_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Published:
    """What was published: where `load` finds it, how many files of how many bytes, who sees it, and what to know."""

    address: str
    files: int
    size_bytes: int
    with_images: bool
    is_public: bool
    notes: tuple[str, ...]

    def summary(self) -> str:
        """A few lines for the person."""
        seen = f", {'public' if self.is_public else 'private'}" if hub.is_on_hub(self.address) else ""
        images = "with small pictures of its images" if self.with_images else "without any image (--with-images)"
        return "\n".join(
            [
                f"{self.address}: {self.files} files, {self.size_bytes / 1e6:,.1f} MB{seen}, {images}",
                *self.notes,
                f"Open:   ImageClusterer.load({self.address!r})",
                f"Use:    {command('shoal', 'assign', self.address, 'images/')}",
            ]
        )


def publish(
    run_dir: RunDir,
    to: str | Path,
    *,
    public: bool = False,
    with_images: bool = False,
    with_labels: bool = True,
    license: str | None = None,
    progress: Progress | None = None,
) -> Published:
    """Write the model of a finished run, as people corrected it, with its card.

    Args:
        to: a folder, or hf://OWNER/NAME. An earlier publication there is replaced as a whole; anything else stays.
        public: on the Hub, let everybody see it.
        with_images: draw a picture of each cluster's most confident images.
        with_labels: tell the evaluation, if there is one, and with it names of labels, which may be folders' names.
        license: of the model, as the Hub calls it; None takes the backbone's.

    Raises:
        RunError: the run is unfinished, or has no encoder.
        RequestError: `to` is no name, or is taken, or lies in the run or where its source is read; the Hub refuses.
        WorkError: it cannot be reached.
        DiskSpaceError: there is no room.
    """
    progress = progress or Progress()
    run_dir.require("index", "embed", "cluster")
    encoder_of(run_dir)
    license = checked(license)
    if hub.is_on_hub(to):
        repo = hub.repository(to)
        wanted = Wanted(repo.split("/")[1], f"{hub.SCHEME}{repo}", with_images, with_labels, license)
        return _to_hub(run_dir, repo, wanted, public, progress)
    if public:
        raise RequestError("--public goes with --to hf://OWNER/NAME, not with a folder")
    target = Path(to).resolve()
    check_replaceable(target)
    require_outside_run(run_dir, target, "--to")
    require_outside_source(run_dir, target, "--to")
    if run_dir.root.resolve().is_relative_to(target):
        raise RequestError(f"--to {target} holds the run {run_dir.root}; expected a folder that does not")
    require_free(target.parent, _model_bytes(run_dir), f"the model in {target}")
    # The card calls its folder by its name alone: where it lies is nobody's business.
    wanted = Wanted(target.name, target.name, with_images, with_labels, license)
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        folder = Path(temporary)
        require_free(folder, _model_bytes(run_dir), "the model")
        notes = write(run_dir, wanted, folder, progress)
        notes += put(folder, target)
        return _published(folder, str(to), wanted, False, notes)


def _to_hub(run_dir: RunDir, repo: str, wanted: Wanted, public: bool, progress: Progress) -> Published:
    api = hub.client()
    earlier = push.look(api, repo, public)
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        folder = Path(temporary)
        require_free(folder, _model_bytes(run_dir), "the model")
        notes = write(run_dir, wanted, folder, progress)
        published = _published(folder, wanted.address, wanted, public, notes)
        progress.say(f"Uploading {published.files} files, {published.size_bytes / 1e6:,.1f} MB, to {wanted.address} …")
        push.push(api, repo, folder, public, earlier)
    return published


def _published(folder: Path, address: str, wanted: Wanted, is_public: bool, notes: Sequence[str]) -> Published:
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return Published(address, len(sizes), sum(sizes), wanted.with_images, is_public, tuple(notes))


def _model_bytes(run_dir: RunDir) -> int:
    encoder = run_dir.model / encoder_of(run_dir).file
    return encoder.stat().st_size + (run_dir.model / "clusters.safetensors").stat().st_size + FIGURES_BYTES
