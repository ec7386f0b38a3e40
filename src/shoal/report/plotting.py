"""What is taken of matplotlib, which is given a folder that it can write first: as it loads, it looks for one."""

from __future__ import annotations

import sys

from shoal import cache

if "matplotlib" not in sys.modules:
    cache.settle_matplotlib()

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

__all__ = [
    "Axes",
    "FancyBboxPatch",
    "Figure",
    "FigureCanvasAgg",
    "FixedLocator",
    "FuncFormatter",
    "MaxNLocator",
    "NullLocator",
    "rc_context",
]
