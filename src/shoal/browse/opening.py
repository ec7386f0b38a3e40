"""Opening the page in the person's browser without telling its secret to others.

What stands on a command line can be read by every user of the machine. So the browser is given a file that only its
owner can read, and that leads to the address.
"""

from __future__ import annotations

import html
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = """<!DOCTYPE html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Shoal</title>
<meta http-equiv="refresh" content="0; url={address}">
<p><a href="{address}">Open the page</a></p>
"""


@contextmanager
def shown(address: str) -> Iterator[None]:
    """Open `address` in the browser; what leads there is gone when the block ends."""
    descriptor, name = tempfile.mkstemp(prefix="shoal-", suffix=".html")  # for its owner alone (0600)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(PAGE.format(address=html.escape(address)))
        # A browser that runs in the terminal, or one that BROWSER names, is waited for.
        threading.Thread(target=webbrowser.open, args=(path.as_uri(),), daemon=True).start()
        yield
    finally:
        path.unlink(missing_ok=True)
