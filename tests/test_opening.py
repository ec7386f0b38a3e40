"""`shoal browse` opens a browser whose command line, which others can read, holds no secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE
from pictures import paint
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir

# Tells what it was given, and what others could do with the file that it was given.
BROWSER = """#!{python}
import os, stat, sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
words = sys.argv[1:]
page = Path(unquote(urlsplit(words[-1]).path))
print("browser:", *words, flush=True)
print("mode:", oct(stat.S_IMODE(page.stat().st_mode)), flush=True)
print("page:", page.read_text().replace(chr(10), " "), flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    paint(tmp_path / "pictures", each=4)
    config = ClusterConfig((str(tmp_path / "pictures"),), clusters="3")
    pipeline.run(config, RunDir(tmp_path / "run"), pipeline.clustering_stages(open_source(config.source)), Progress())
    return tmp_path / "run"


@pytest.mark.skipif(os.name == "nt", reason="BROWSER names a script there is no way to run")
def test_the_token_stands_on_no_command_line(run: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER.format(python=sys.executable), encoding="utf-8")
    browser.chmod(0o700)
    places = {"BROWSER": str(browser), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "shoal", "browse", str(run)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **places, "PYTHONUNBUFFERED": "1"},
    ) as shoal:
        assert shoal.stdout is not None
        told = {}
        for line in shoal.stdout:
            name, _, value = line.partition(" ")
            told[name] = value.strip()
            if name == "page:":
                break
            if " is at " in line:
                told["address"] = line.split()[-1]
        shoal.send_signal(signal.SIGINT)
        shoal.wait(PATIENCE)
    token = re.search(r"token=(\S+)", told["address"])
    assert token is not None
    assert token[1] not in told["browser:"]
    assert told["browser:"].startswith("file:///")
    assert told["mode:"] == "0o600"
    assert told["address"] in told["page:"]
    assert not list(tmp_path.glob("shoal-*.html"))
