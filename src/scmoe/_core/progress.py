"""Progress of long work: bars where a person watches, one line a stage elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

REFRESH = 1.0
"""Seconds after which the clock of a stage moves."""


def is_watched() -> bool:
    """Return whether a person watches: in a terminal or a notebook, not in a log file."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or (shell is not None and hasattr(shell, "kernel"))


@contextmanager
def stage(text: str, *, progress: bool = True) -> Iterator[None]:
    """Show that a stage without countable steps is at work.

    Parameters
    ----------
    text
        What is being done.
    progress
        Whether to show anything.
    """
    if not (progress and is_watched()):
        with timed(text, progress=progress):
            yield
        return
    done = threading.Event()
    with tqdm(desc=text, bar_format="{desc}: {elapsed}") as clock:

        def tick() -> None:
            while not done.wait(REFRESH):
                clock.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            done.set()
            ticking.join()


def bar(
    items: Iterable[T],
    text: str,
    *,
    total: int | None = None,
    unit: str = "it",
    progress: bool = True,
) -> Iterator[T]:
    """Yield items, and show how many of them are done.

    Parameters
    ----------
    items
        What to go through.
    text
        What is being done.
    total
        Number of the items, where they do not know it.
    unit
        What an item is.
    progress
        Whether to show anything.
    """
    if progress and is_watched():
        yield from tqdm(items, desc=text, total=total, unit=unit)
        return
    with timed(text, progress=progress):
        yield from items


@contextmanager
def timed(text: str, *, progress: bool = True) -> Iterator[None]:
    """Write one line with the seconds that a stage took, where nobody watches a bar."""
    start = time.perf_counter()
    yield
    if progress and not is_watched():
        tqdm.write(f"scmoe: {text} ({time.perf_counter() - start:.1f} s)", file=sys.stderr)
