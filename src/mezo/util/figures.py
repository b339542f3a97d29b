"""matplotlib, whatever backend the environment names: pictures are written to files, and need no display."""

import contextlib
import os
import sys


def _load() -> None:
    """Import matplotlib, which refuses to be imported where MPLBACKEND names a backend that it does not know."""
    asked = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with contextlib.suppress(ValueError, ImportError):
            matplotlib.rcParams["backend"] = asked  # as matplotlib does it: for the user's own pictures


_load()

from matplotlib import rc_context as rc_context  # noqa: E402
from matplotlib.axes import Axes as Axes  # noqa: E402
from matplotlib.figure import Figure as Figure  # noqa: E402
from matplotlib.ticker import AutoLocator as AutoLocator  # noqa: E402
from matplotlib.ticker import MaxNLocator as MaxNLocator  # noqa: E402
