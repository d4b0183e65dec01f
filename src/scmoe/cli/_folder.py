"""A folder that appears when it is whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CELLS, TABLE, REPORT, MODEL, FCS = "cells.h5ad", "clusters.csv", "report.html", "model", "fcs"
ABUNDANCE = "abundance.csv"
"""What the folder holds."""


@contextmanager
def output_folder(path: Path, *, overwrite: bool, alone: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path``, which takes its place at the end.

    Parameters
    ----------
    path
        The folder to make, absolute; its parents are made too.
    overwrite
        Replace a folder that an earlier run wrote.
    alone
        No other run writes ``path`` now, so what one that was killed left may go.

    Raises
    ------
    ValueError
        If there is something at ``path`` that must not be replaced.
    """
    check_output(path, overwrite=overwrite)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{'unfinished' if alone else secrets.token_hex(4)}")
    if alone and part.exists():
        shutil.rmtree(part)
    try:
        part.mkdir()
        yield part
        _put(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            _remove_if_empty(parent)
        raise


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise ValueError if ``path`` holds what must not be replaced."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"--output {path} is a file; name a folder.")
    there = sorted(entry.name for entry in path.iterdir())
    if not there:
        return
    if not overwrite:
        raise ValueError(
            f"--output {path} exists and is not empty; name another folder, or replace it with "
            "--overwrite."
        )
    foreign = [name for name in there if name not in (CELLS, TABLE, ABUNDANCE, REPORT, MODEL, FCS)]
    if foreign or REPORT not in there:
        what = f"holds {', '.join(foreign[:3])}" if foreign else f"has no {REPORT}"
        raise ValueError(
            f"--output {path} {what}, so it is no folder that scmoe wrote; --overwrite would "
            "delete it. Name another folder."
        )


def _put(part: Path, path: Path) -> None:
    if not path.exists():
        part.rename(path)
        return
    old = path.with_name(f"{part.name}-old")
    path.rename(old)
    try:
        part.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        # somebody else uses it by now
        return
