"""Shared parts of the experiments: options, records, and the file of the records."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import ModuleType

    from anndata import AnnData

PACKAGES = ("scmoe", "torch", "scvi-tools", "scanpy", "scikit-learn", "scikit-network")
"""Packages whose versions are written beside the records."""


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    Parameters
    ----------
    seeds
        One run for each.
    datasets, methods
        Names; None for all.
    size
        ``"full"`` or ``"small"``: the experiment as it is meant, or something of minutes.
    """

    seeds: list[int]
    datasets: list[str] | None = None
    methods: list[str] | None = None
    size: str = "full"

    def choose(self, what: str, available: Iterable[str]) -> list[str]:
        """Return the requested ones of ``available``, in its order.

        Parameters
        ----------
        what
            ``"datasets"`` or ``"methods"``.
        available
            The names that there are.

        Raises
        ------
        KeyError
            A name that is not there.
        """
        available, asked = list(available), getattr(self, what)
        if asked is None:
            return available
        if unknown := [name for name in asked if name not in available]:
            raise KeyError(f"No {what} named {unknown}; there are {available}.")
        return [name for name in available if name in asked]


def in_order_of(seed: int, cells: AnnData) -> AnnData:
    """Return a copy of the cells in an order that the seed draws.

    Published cells often come sorted by population, which helps methods that depend on the order.
    """
    return cells[np.random.default_rng(seed).permutation(cells.n_obs)].copy()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of ``call``, and the CPU seconds of it and its child processes.

    On a machine that is shared they say more than a clock does.
    """
    start = sum(os.times()[:4])
    result = call()
    return result, round(sum(os.times()[:4]) - start, 2)


def attempt(identity: dict, call: Callable[[], dict], say: Callable[[str], None]) -> dict:
    """Return a record: ``identity`` with the measurements of ``call``, or with its error.

    An error of one method (a package that is missing, too little memory) is a result like
    any other and must not end a run of hours.
    """
    what = " | ".join(map(str, identity.values()))
    try:
        measured = call()
    except Exception as error:  # noqa: BLE001
        say(f"{what}: {type(error).__name__}: {error}")
        return {**identity, "error": f"{type(error).__name__}: {error}"}
    shown = ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in measured.items()
    )
    say(f"{what}: {shown}")
    return {**identity, **measured}


def merge(old: Iterable[dict], new: Iterable[dict], keys: tuple[str, ...]) -> list[dict]:
    """Return all records; a new one replaces an old one with the same ``keys``."""
    found = {tuple(record.get(key) for key in keys): record for record in old}
    found |= {tuple(record.get(key) for key in keys): record for record in new}
    return list(found.values())


def save(path: Path, records: Iterable[dict], keys: tuple[str, ...], settings: dict) -> None:
    """Merge ``records`` into the file, which is complete at any moment."""
    old = json.loads(path.read_text())["records"] if path.exists() else []
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
        **settings,
        "records": merge(old, records, keys),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(result, indent=1) + "\n")
    draft.replace(path)


def execute(
    module: ModuleType, options: Options, say: Callable[[str], None], path: Path | None
) -> list[dict]:
    """Run an experiment; each record is in the file before the next one is measured.

    Parameters
    ----------
    module
        The experiment, see :mod:`benchmarks`.
    options
        What to run.
    say
        Is given a line for each record.
    path
        The file; None to write nothing.

    Returns
    -------
    The records of this run.
    """
    records = []
    for record in module.run(options, say):
        records.append(record)
        if path is not None:
            save(path, [record], module.KEYS, module.SETTINGS)
    return records
