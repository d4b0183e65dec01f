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
    """Return the hash and the ``url`` (or None, and ``origin``) of every file, by its name.

    The hash is ``sha256``, or ``md5`` where the publisher gives nothing else.
    """
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
    path = find(name)
    if path is not None:
        return path
    entry = registry()[name]
    if entry["url"] is None:
        raise FileNotFoundError(
            f"{name!r} is not on this machine. It is not in a public place in this form, so it "
            f"cannot be downloaded; the original is at {entry['origin']}. Put the file into a "
            f"folder and name that in the environment variable {ENVIRONMENT}."
        )
    return _download(name, entry)


def find(name: str) -> Path | None:
    """Return the path of a file in ``SCMOE_DATA_DIR``, None where it is not there.

    Parameters
    ----------
    name
        As in the registry, ``"folder/file"``.

    Raises
    ------
    ValueError
        If the file is not the registered one.
    """
    folder = os.environ.get(ENVIRONMENT, "")
    path = Path(folder) / name
    if not folder or not path.is_file():
        return None
    algorithm, expected = _hash(registry()[name])
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected:
        raise ValueError(
            f"{path} is not the file that scmoe knows as {name!r}: its {algorithm.upper()} is "
            f"{found}, not {expected}. Replace it, or unset {ENVIRONMENT}."
        )
    return path


def _hash(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the algorithm and the digest."""
    algorithm = "sha256" if "sha256" in entry else "md5"
    return algorithm, entry[algorithm]


def _download(name: str, entry: dict[str, Any]) -> Path:
    from scanpy import settings

    place = Path(settings.datasetdir) / "scmoe" / Path(name).parent
    logger.info("looking for %s in %s", name, place)
    try:
        path = pooch.retrieve(
            entry["url"],
            known_hash=":".join(_hash(entry)),
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
