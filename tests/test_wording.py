"""Commands that are told can be pasted, counts have their noun in the right number."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import shoal
from pictures import paint
from shoal.config import ClusterConfig
from shoal.errors import RunError
from shoal.images.sources import open_source
from shoal.pipeline import clustering_stages, report_stages
from shoal.pipeline import run as run_stages
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.summary import cluster_summary
from shoal.wording import command, counted

NAMES = ("Meine Fotos & Bücher.shoal", "a;b", "it's", "$HOME", "plain.shoal", "two  blanks", "a(1)")


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_takes_a_told_command_apart_as_it_was_meant(name: str) -> None:
    assert shlex.split(command("shoal", "browse", Path(name), windows=False)) == ["shoal", "browse", name]


def test_plain_words_stay_as_they_are() -> None:
    for windows in (False, True):
        assert command("shoal", "relink", "a/b.shoal", "SOURCE", windows=windows) == "shoal relink a/b.shoal SOURCE"


def test_on_windows_quotes_are_double_ones() -> None:
    told = {
        r"C:\Meine Fotos": r'"C:\Meine Fotos"',
        "a&b.shoal": '"a&b.shoal"',
        "a&b\\": r'"a&b\\"',
        "C:\\Bücher\\": "C:\\Bücher\\",
        "": '""',
    }
    for name, expected in told.items():
        assert command("shoal", "browse", name, windows=True) == f"shoal browse {expected}"


def test_no_command_with_a_name_in_it_is_told_unquoted() -> None:
    """A name in a text of the source, right after a command's words, went past `command`."""
    found = []
    for file in sorted(Path(shoal.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found += [f"{file.name}: {text}" for _ in re.finditer(r"\bshoal [a-z]+ (--?[a-z]+ )*\{\}", text)]
    assert found == []


def test_what_is_told_of_a_run_with_blanks_in_its_name_can_be_pasted(tmp_path: Path) -> None:
    source, root = tmp_path / "Meine Fotos & Bücher", tmp_path / "Meine Fotos & Bücher.shoal"
    paint(source, kinds=2, each=4)
    config = ClusterConfig(source=(str(source),), clusters="2")
    run_dir = run_stages(config, RunDir(root), clustering_stages(open_source(config.source)), Progress(), report_stages)
    told = re.findall(r"\((shoal .*)\)", cluster_summary(run_dir))
    words = [["shoal", "browse", str(root)], ["shoal", "report", str(root), "--open"]]
    assert [shlex.split(line) for line in told] == words
    for place, rest in ((source, [str(source)]), (tmp_path / "no run", ["SOURCE", "--out", str(tmp_path / "no run")])):
        with pytest.raises(RunError) as failure:
            RunDir.open(place)
        told = re.findall(r"\(make one with: (.*)\)", str(failure.value))
        assert shlex.split(told[0]) == ["shoal", "cluster", *rest]


def test_counts() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1800)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,800 images",
    ]
    assert [counted(number, "copy", "copies") for number in (1, 3)] == ["1 copy", "3 copies"]
