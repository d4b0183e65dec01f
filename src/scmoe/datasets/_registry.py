"""Finds the files of published data sets: on this machine, else at their public source."""

from __future__ import annotations

import json
import logging
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pooch

logger = logging.getLogger("scmoe")

ENVIRONMENT = "SCMOE_DATA_DIR"


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Return ``sha256`` and ``url`` (or None, and ``origin``) of every file, by its name."""
    return json.loads(files(__package__).joinpath("registry.json").read_text("utf-8"))


def fetch(name: str) -> Path:
    """Return the path of a file whose hash is the registered one.

    Looks in the folder that the environment variable ``SCMOE_DATA_DIR`` names, then in
    ``scmoe`` in :attr:`scanpy.settings.datasetdir`, then downloads it to there.

    Parameters
    ----------
    name
        As in the registry, ``"folder/file"``.

    Raises
    ------
    ValueError
        If a file in ``SCMOE_DATA_DIR`` is not the registered one.
    OSError
        If it is not on this machine and cannot be downloaded.
    """
    entry = registry()[name]
    folder = os.environ.get(ENVIRONMENT, "")
    if folder:
        path = Path(folder) / name
        if path.is_file():
            found = pooch.file_hash(str(path), alg="sha256")
            if found != entry["sha256"]:
                raise ValueError(
                    f"{path} is not the file that scmoe knows as {name!r}: its SHA-256 is {found},"
                    f" not {entry['sha256']}. Replace it, or unset {ENVIRONMENT}."
                )
            return path
    if entry["url"] is None:
        raise FileNotFoundError(
            f"{name!r} is not on this machine. It is not in a public place in this form, so it "
            f"cannot be downloaded; the original is at {entry['origin']}. Put the file into a "
            f"folder and name that in the environment variable {ENVIRONMENT}."
        )
    return _download(name, entry)


def _download(name: str, entry: dict[str, Any]) -> Path:
    from scanpy import settings

    place = Path(settings.datasetdir) / "scmoe" / Path(name).parent
    logger.info("looking for %s in %s", name, place)
    try:
        path = pooch.retrieve(
            entry["url"],
            known_hash=f"sha256:{entry['sha256']}",
            fname=Path(name).name,
            path=place,
        )
    except Exception as error:
        # pooch lets through whatever its transport raises, requests.ConnectionError and
        # others that share no base class with what it raises on a wrong hash
        raise OSError(
            f"{name!r} could not be downloaded from {entry['url']} to {place} ({error}). Without "
            f"a connection, put it into a folder as {name!r} and name that folder in the "
            f"environment variable {ENVIRONMENT}."
        ) from error
    return Path(path)
