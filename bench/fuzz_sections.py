"""What `bench/fuzz.py` damages, and how each is read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mutations import changed_json, damaged, places

LOCK = {"host": socket.gethostname(), "boot": "", "pid": os.getpid(), "started": 1.0}
Made = tuple[str, Callable[[], object]]  # what was changed, and how it is read


@dataclass
class Section:
    """Makes the sound inputs once, in `folder`; then gives input after input."""

    folder: Path

    def prepare(self) -> None:
        raise NotImplementedError

    def make(self, draw: random.Random) -> Made:
        raise NotImplementedError


@dataclass
class Images(Section):
    sound: dict[str, bytes] = field(default_factory=dict)

    def prepare(self) -> None:
        import numpy as np
        import pillow_heif
        from PIL import Image

        pillow_heif.register_heif_opener()
        pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        pixels[8:40, 8:56] = (200, 40, 90)
        picture = Image.fromarray(pixels)
        grey16 = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        kinds: list[tuple[str, str, Any, dict[str, Any]]] = [
            ("jpeg", "JPEG", picture, {}),
            ("jpeg progressive", "JPEG", picture, {"progressive": True, "quality": 60}),
            ("jpeg cmyk", "JPEG", picture.convert("CMYK"), {}),
            ("jpeg grey", "JPEG", picture.convert("L"), {}),
            (
                "jpeg exif",
                "JPEG",
                picture,
                {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
            ),
            *((f"png {mode}", "PNG", picture.convert(mode), {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
            ("png 16", "PNG", grey16, {}),
            ("gif", "GIF", picture, {"save_all": True, "append_images": [picture.rotate(9)], "loop": 0}),
            ("webp", "WEBP", picture, {}),
            ("webp lossless", "WEBP", picture.convert("RGBA"), {"lossless": True}),
            ("webp animated", "WEBP", picture, {"save_all": True, "append_images": [picture.rotate(9)]}),
            *((f"bmp {mode}", "BMP", picture.convert(mode), {}) for mode in ("1", "L", "P", "RGB")),
            *(
                ("tiff " + how, "TIFF", picture, {"compression": how})
                for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
            ),
            ("tiff 16", "TIFF", grey16, {}),
            ("jpeg 2000", "JPEG2000", picture, {}),
            ("avif", "AVIF", picture, {}),
            ("heif", "HEIF", picture, {}),
            ("ppm", "PPM", picture, {}),
            ("ico", "ICO", picture, {}),
        ]
        for name, form, image, options in kinds:
            with contextlib.suppress(KeyError, OSError, ValueError):  # a format that this Pillow cannot write
                data = io.BytesIO()
                image.save(data, form, **options)
                self.sound[name] = data.getvalue()
        with contextlib.suppress(ImportError):
            import tifffile

            for name, array, options in (
                (
                    "planar 16",
                    np.moveaxis(pixels, 2, 0).astype(np.uint16) * 200,
                    {"photometric": "rgb", "planarconfig": "separate"},
                ),
                ("float", pixels[..., 0].astype(np.float32) / 255, {}),
                ("tiled", pixels, {"photometric": "rgb", "tile": (16, 16)}),
                ("stack", np.stack([pixels[..., 0]] * 3), {"photometric": "minisblack"}),
                ("signed", pixels[..., 0].astype(np.int16), {}),
                ("big", pixels, {"photometric": "rgb", "bigtiff": True}),
            ):
                data = io.BytesIO()
                tifffile.imwrite(data, array, **options)
                self.sound[f"tifffile {name}"] = data.getvalue()

    def make(self, draw: random.Random) -> Made:
        name = draw.choice(sorted(self.sound))
        data = damaged(self.sound[name], draw, list(self.sound.values()))

        def read() -> None:
            from shoal.errors import DecodeError
            from shoal.images.decode import decode_scaled, probe

            with contextlib.suppress(DecodeError):
                probe(data)
            decode_scaled(data, 32)

        return name, read


@dataclass
class Manifests(Section):
    """Lists and tables of paths; listed, as a source and as labels."""

    sound: list[tuple[str, bytes]] = field(default_factory=list)

    def prepare(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from pictures import paint

        paint(self.folder / "kinds", each=2)
        paths = [path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*.png"))]
        table = "path,label\r\n" + "".join(f'"{path}",{path[6:11]}\r\n' for path in paths)
        own = "path,cluster,confidence\n" + "".join(f"{path},0,0.5\n" for path in paths)
        self.sound = [
            ("a.csv", table.encode()),
            ("b.csv", table.replace(",", ";").encode("utf-16")),
            ("c.tsv", table.replace(",", "\t").encode("utf-8-sig")),
            ("d.txt", "\n".join(paths).encode()),
            ("e.csv", own.encode()),
            (
                "f.csv",
                b"uri,label\nhttp://127.0.0.1:9/a.jpg,a\nfile:///dev/zero,b\nzip://a.jpg::x.zip,c\ns3://a/b.jpg,d\n",
            ),
        ]
        written = io.BytesIO()
        pq.write_table(pa.table({"path": paths, "label": [path[:3] for path in paths]}), written)
        self.sound.append(("g.parquet", written.getvalue()))

    def make(self, draw: random.Random) -> Made:
        name, data = draw.choice(self.sound)
        if name.endswith(".parquet") or draw.random() < 0.6:
            data = damaged(data, draw, [other for _, other in self.sound])
        else:
            lines = data.split(b"\n")
            for _ in range(draw.randrange(1, 4)):
                at = draw.randrange(len(lines))
                lines[at] = draw.choice(
                    (
                        b'"',
                        b"'=1,2",
                        b"a" * 200_000,
                        b"\xff\xfe",
                        b"../" * 50,
                        b"," * 5000,
                        lines[at] * 2,
                        b"\0",
                        b"reference://x",
                    )
                )
            data = b"\n".join(lines)
        path = self.folder / name
        path.write_bytes(data)

        def read() -> None:
            from shoal.images.sources import open_source

            list(open_source([str(path)]).listed().items())

        return name, read


@dataclass
class Journals(Section):
    """Journals of moves and records of exports."""

    def prepare(self) -> None:
        self.source, self.dest = self.folder / "photos", self.folder / "sorted"
        (self.dest / "cluster_000").mkdir(parents=True)
        self.source.mkdir()
        self.moves = [
            {
                "source": str(self.source / f"{number}.jpg"),
                "target": f"cluster_000/{number}.jpg",
                "size": 3,
                "sha256": "0" * 64,
                "seal": None,
            }
            for number in range(4)
        ]
        self.record: list[Any] = [
            {"shoal_export": 1, "kind": "folders", "plan": "0" * 64, "parts": "0" * 32},
            {"labels": "1" * 64},
        ]

    def make(self, draw: random.Random) -> Made:
        from shoal.export.journal import JOURNAL_NAME
        from shoal.export.record import RECORD_NAME, Record
        from shoal.export.undo import undo

        is_journal = draw.random() < 0.6
        lines = [
            changed_json(line, draw) if draw.random() < 0.5 else json.dumps(line).encode()
            for line in (self.moves if is_journal else self.record)
        ]
        data = b"".join(line + b"\n" for line in lines)
        if draw.random() < 0.3:
            data = damaged(data, draw, [data])
        path = self.dest / (JOURNAL_NAME if is_journal else RECORD_NAME)
        for name in (JOURNAL_NAME, RECORD_NAME):
            (self.dest / name).unlink(missing_ok=True)
        path.write_bytes(data)
        read = (lambda: undo(self.dest, source=self.source)) if is_journal else (lambda: Record.read(self.dest))
        return path.name, read


@dataclass
class OfARun(Section):
    """A small finished run, copied for each input by hard links."""

    def prepare(self) -> None:
        from pictures import paint
        from shoal import pipeline
        from shoal.config import ClusterConfig
        from shoal.images.sources import open_source
        from shoal.progress import Progress
        from shoal.rundir import RunDir

        paint(self.folder / "pictures", each=5)
        self.run = self.folder / "run"
        config = ClusterConfig((str(self.folder / "pictures"),), clusters="3")
        pipeline.run(config, RunDir(self.run), pipeline.clustering_stages(open_source(config.source)), Progress())
        self.work = self.folder / "work"

    def copied(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.run, self.work, copy_function=os.link)
        return self.work

    @staticmethod
    def put(path: Path, data: bytes) -> None:
        path.unlink(missing_ok=True)  # its other names keep what they have
        path.write_bytes(data)


@dataclass
class RunFiles(OfARun):
    """What a run says of itself, its tables and arrays, as the commands read them."""

    def prepare(self) -> None:
        super().prepare()
        from shoal.evaluate.evaluate import evaluate, keep
        from shoal.rundir import RunDir

        keep(self.run, evaluate(RunDir.open(self.run), "folders"))
        names = [path.relative_to(self.run).as_posix() for path in self.run.rglob("*") if path.is_file()]
        read = [name for name in names if name.startswith("generations/") and "encoder" not in name]
        self.names = sorted(name for name in read if name.endswith((".json", ".parquet", ".npy")))

    def make(self, draw: random.Random) -> Made:
        name = draw.choice(("run.json", "run.json", "lock", *["", ""] * 2)) or draw.choice(self.names)
        root = self.copied()
        data = (root / name).read_bytes() if name != "lock" else json.dumps(LOCK).encode()
        if name.endswith(".json") or name == "lock":
            new = changed_json(json.loads(data), draw)
        elif name.endswith(".parquet") and draw.random() < 0.7:
            new = changed_table(data, draw)
        else:
            new = damaged(data, draw, [data])
        self.put(root / name, new)
        return name, lambda: look(root)


def changed_table(data: bytes, draw: random.Random) -> bytes:
    """A Parquet file with a column gone, of another type, in another order, or with other values in it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    place = draw.randrange(table.num_columns)
    name, values = table.column_names[place], table.column(place).to_pylist()
    others = [None, -1, 0, 1, 2**31 - 1, -(2**31), float("nan"), 1e30, "", "x" * 5000, "../x", True]
    match draw.randrange(5):
        case 0:
            table = table.drop_columns([name])
        case 1:
            count = len(values)
            other = draw.choice((pa.array(list(map(str, values))), pa.nulls(count), pa.array(np.arange(count) * 1.5)))
            table = table.set_column(place, name, other)
        case 2:
            table = table.take(pa.array([draw.randrange(len(values)) for _ in values], pa.int64()))
        case 3:
            table = table.slice(0, draw.randrange(len(values) + 1))
        case _:
            for _ in range(draw.choice((1, 2, len(values))) if values else 0):
                values[draw.randrange(len(values))] = draw.choice(others)
            with contextlib.suppress(pa.ArrowException, OverflowError):
                table = table.set_column(place, name, pa.array(values, table.schema.field(place).type))
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def look(root: Path) -> None:
    """What the commands read of a run that somebody else made."""
    from shoal import lock
    from shoal.browse.evidence import evidence
    from shoal.browse.overview import cluster_list, run_facts, warm_up
    from shoal.browse.site import OpenedRun
    from shoal.config import ClusterConfig
    from shoal.corrections.corrected import read_corrected
    from shoal.corrections.model import corrected_model
    from shoal.embeddings import EmbeddingStore
    from shoal.export.rows import read_rows
    from shoal.export.tables import long_csv
    from shoal.neighbours.query import nearest
    from shoal.report.findings import Findings
    from shoal.rundir import RunDir
    from shoal.summary import cluster_summary

    run = RunDir.open(root)
    lock.writer(root / "lock")
    run.require("index", "embed", "neighbours", "cluster")
    ClusterConfig.from_json(run.read_state().get("asked"))
    long_csv(read_rows(run))
    corrected = read_corrected(run)
    corrected_model(run, corrected)
    store = EmbeddingStore.open(run.embeddings)
    nearest(store, corrected.ids, store.read(corrected.ids[:1]), 3)
    cluster_summary(run)
    Findings.read(run)
    opened = OpenedRun.open(root)
    warm_up(opened)
    evidence(opened)
    cluster_list(opened, opened.view.snapshot(), "chosen")
    run_facts(SimpleNamespace(run=opened, folder=root))  # type: ignore[arg-type]


@dataclass
class Edits(OfARun):
    """edits.jsonl of a run, with what it names replayed."""

    def prepare(self) -> None:
        super().prepare()
        from shoal.corrections import changes
        from shoal.corrections.corrected import read_corrected
        from shoal.corrections.log import append, read_log
        from shoal.rundir import RunDir

        def edit(make: Callable[[Any], Any]) -> None:
            run = RunDir.open(self.run)
            corrected = read_corrected(run)
            append(run, lambda _: make(corrected))

        edit(lambda now: changes.rename(now, 0, "discs"))
        edit(lambda now: changes.merge(now, [0, 1]))
        edit(lambda now: changes.split(now, 0, [now.members(0)[:3], now.members(0)[3:]]))
        edit(lambda now: changes.move(now, now.members(2)[:2].tolist(), None, "two"))
        edit(lambda now: changes.mark_noise(now, now.members(2)[:1].tolist()))
        edit(lambda now: changes.undo(now, read_log(RunDir.open(self.run))))
        edit(lambda now: changes.redo(now, read_log(RunDir.open(self.run))))
        self.lines = [json.loads(line) for line in (self.run / "edits.jsonl").read_bytes().splitlines()]
        refit = {
            "to": self.lines[0]["base"],
            "names": {"0": "a"},
            "noise": 2,
            "pinned": "1-3",
            "numbers": {"0": 1},
            "conflicts": {"2": "gone"},
        }
        self.lines.append({**self.lines[0], "n": 8, "op": "refit", "refit": refit})

    def make(self, draw: random.Random) -> Made:
        from shoal.corrections.corrected import read_corrected
        from shoal.corrections.model import corrected_model
        from shoal.export.rows import read_rows
        from shoal.rundir import RunDir

        root = self.copied()
        chosen = draw.sample(self.lines, draw.randrange(1, len(self.lines) + 1)) if draw.random() < 0.3 else self.lines
        lines = [changed_json(line, draw) if draw.random() < 0.3 else json.dumps(line).encode() for line in chosen]
        if draw.random() < 0.2:
            wide = {
                "ids": draw.choice(
                    ("0-99999999999", "0-16777215", ",".join(["0-9999999"] * 50), "5-3", "1,,2", "0-" + "9" * 18)
                )
            }
            lines.append(json.dumps({**self.lines[3], **wide}).encode())
        self.put(root / "edits.jsonl", b"".join(line + b"\n" for line in lines))

        def read() -> None:
            run = RunDir.open(root)
            corrected = read_corrected(run)
            corrected_model(run, corrected)
            read_rows(run)

        return "edits.jsonl", read


@dataclass
class Models(Section):
    """A model folder of a small network: description, tensors, names, the publication's manifest."""

    def prepare(self) -> None:
        import numpy as np
        import timm
        import torch
        from safetensors.torch import save_file

        from shoal import atomic
        from shoal.cluster.confidence import Landmarks
        from shoal.cluster.model import ClusterModel
        from shoal.cluster.space import ClusterSpace
        from shoal.encoder import backbones
        from shoal.publication import Manifest

        torch.manual_seed(0)
        self.model = self.folder / "model"
        self.model.mkdir()
        weights = self.model / "encoder.safetensors"
        save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
        _, spec = backbones.build("test_resnet", "default", "crop", weights)
        atomic.write_json(
            self.model / "config.json", {"format_version": 1, "encoder": spec.to_json(), "name": "a model"}
        )
        rng = np.random.default_rng(0)

        def drawn(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        space = ClusterSpace("cosine", drawn(spec.dim), drawn(spec.dim, 8), drawn(8))
        landmarks = Landmarks(drawn(6, 8), np.abs(drawn(6)))
        clusters = ClusterModel(space, drawn(4, 8), 8.0, drawn(4), 3.0, landmarks)
        clusters.save(self.model, np.array([0, 1, 1, 2], np.int32), {0: "discs", 2: "stripes"})
        Manifest.of(self.model).write(self.model)
        self.names = sorted(path.name for path in self.model.iterdir())
        self.work = self.folder / "work"

    def make(self, draw: random.Random) -> Made:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.model, self.work, copy_function=os.link)
        name = draw.choice(self.names)
        data = (self.work / name).read_bytes()
        if name.endswith(".json"):
            new = changed_json(json.loads(data), draw)
        elif draw.random() < 0.5:
            size = int.from_bytes(data[:8], "little")
            header = changed_json(json.loads(data[8 : 8 + size]), draw)
            new = len(header).to_bytes(8, "little") + header + data[8 + size :]
        else:
            new = damaged(data, draw, [data])
        OfARun.put(self.work / name, new)

        def read() -> None:
            import numpy as np

            from shoal.corrections.model import load_model
            from shoal.encoder import rebuilt
            from shoal.encoder.spec import ModelConfig
            from shoal.model import is_model_folder
            from shoal.publication import read_whole

            is_model_folder(self.work)
            clusters = read_whole(self.work, load_model)
            spec = read_whole(self.work, lambda files: ModelConfig.read(files / "config.json")).encoder
            rebuilt.rebuild(spec, self.work / "encoder.safetensors")
            if clusters.model.space.dim == spec.dim:
                clusters.assign(np.random.default_rng(0).standard_normal((5, spec.dim)).astype(np.float32))

        return name, read


@dataclass
class Recipes(Section):
    def prepare(self) -> None:
        import yaml

        from shoal.train import recipe

        self.sound = [json.loads(json.dumps(recipe.load(name).to_json())) for name in recipe.names()]
        self.dump = yaml.safe_dump
        self.path = self.folder / "recipe.yaml"

    def make(self, draw: random.Random) -> Made:
        from shoal.train import recipe

        values = draw.choice(self.sound)
        changes: list[str] = []
        match draw.randrange(5):
            case 0:
                text = self.dump(values).encode()
                self.path.write_bytes(damaged(text, draw, [text]))
            case 1:
                self.path.write_bytes(draw.choice(BOMBS))
            case 2:
                self.path.write_text(self.dump(values))
                found = [(holder, key) for holder, key in places(values) if isinstance(holder, dict)]
                changes = [f"{_dotted(values, *draw.choice(found))}={draw.choice(SETTINGS)}" for _ in range(2)]
            case _:
                self.path.write_bytes(changed_json(values, draw))  # which is YAML too
        return f"recipe {' '.join(changes)}", lambda: recipe.load(str(self.path), changes)


BOMBS = (
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    b"a: &a {k: v}\nb: {<<: [*a, *a]}",
    b"&a [*a]",
    b"!!python/object/apply:os.system [ls]",
    b"!!int ''",
    b"!!timestamp x",
    b"pretext: 2001-99-99",
    b"? [a]\n: b",
    b"- " * 20_000,
    b"[" * 60_000,
    b"{" * 60_000,
    b"a: " + b"9" * 5000,
    b"pretext: {epochs: " + b"9" * 5000 + b"}",
    b"\x00",
    b"\xff\xfe",
    b"%YAML 9.9\n---\na",
    b"--- a\n--- b",
)
SETTINGS = (
    ".nan",
    ".inf",
    "-.inf",
    "-1",
    "0",
    "1e309",
    "nan",
    "1e-400",
    "true",
    "null",
    "[]",
    "{}",
    "*a",
    "!!int x",
    "'x'",
    "[",
    "9" * 5000,
    "0x_",
    "1:99:99",
)


def _dotted(values: Any, holder: Any, key: Any) -> str:
    """The way to a key, as --set writes it."""
    if values is holder:
        return str(key)
    for name, inner in values.items() if isinstance(values, dict) else ():
        if isinstance(inner, dict) and (inner is holder or any(one is holder for one, _ in places(inner))):
            return f"{name}.{_dotted(inner, holder, key)}"
    return str(key)


SECTIONS: dict[str, type[Section]] = {
    "images": Images,
    "manifests": Manifests,
    "journals": Journals,
    "run-files": RunFiles,
    "models": Models,
    "recipes": Recipes,
    "edits": Edits,
}
