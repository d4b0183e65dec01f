"""The files of published data sets: on this machine, or downloaded from their public source."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pooch

ENVIRONMENT = "SCMOE_DATA_DIR"


def registry() -> pooch.Pooch:
    """Return the registered files, with their hashes and addresses.

    Files are kept in the folder that the environment variable ``SCMOE_DATA_DIR`` names, by default
    in ``scmoe`` in :attr:`scanpy.settings.datasetdir`.
    """
    from scanpy import settings

    entries = json.loads(files(__package__).joinpath("registry.json").read_text("utf-8"))
    return pooch.create(
        path=Path(settings.datasetdir) / "scmoe",
        base_url="",
        env=ENVIRONMENT,
        registry={name: entry["hash"] for name, entry in entries.items()},
        urls={name: entry["url"] for name, entry in entries.items() if "url" in entry},
        allow_updates=False,
    )


def fetch(name: str) -> Path:
    """Return the path of a registered file; download the file where it is missing.

    Parameters
    ----------
    name
        Key of the registry, ``"folder/file"``.

    Raises
    ------
    ValueError
        If the file is there, but is not the published one.
    OSError
        If the file is missing and cannot be downloaded.
    """
    path = find(name)
    if path is not None:
        return path
    known = registry()
    try:
        return Path(known.fetch(name))
    except Exception as error:
        # the errors of pooch and of its transport share no other base class
        raise OSError(
            f"{name!r} could not be downloaded from {known.urls[name]} to {known.abspath} "
            f"({error}). Without a connection, put the file there as {name!r}, or into another "
            f"folder that the environment variable {ENVIRONMENT} names."
        ) from error


def find(name: str) -> Path | None:
    """Return the path of a registered file, None where it is not on this machine.

    Parameters
    ----------
    name
        Key of the registry, ``"folder/file"``.

    Raises
    ------
    ValueError
        If the file is there, but is not the published one.
    """
    known = registry()
    path = known.abspath / name
    if not path.is_file():
        return None
    try:
        return Path(known.fetch(name))
    except ValueError as error:
        raise ValueError(
            f"{path} is not the published file {name!r}: its hash is not {known.registry[name]}. "
            f"Delete or replace it, or let {ENVIRONMENT} name another folder."
        ) from error
