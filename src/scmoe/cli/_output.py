"""The output folder of a run: locked before any work, filled file by file."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scmoe._core.atomic import (
    NoLocksError,
    clean,
    flush,
    lock,
    made_folder,
    move_folder,
    workspace,
)
from scmoe._core.text import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CELLS, TABLE, REPORT, MODEL, FCS = "cells.h5ad", "clusters.csv", "report.html", "model", "fcs"
STORE, ABUNDANCE = "cells.zarr", "abundance.csv"
"""Files and folders of the results."""

RECORD = "run.json"
"""Settings of the run, and the files that it wrote; locked during the run."""


class Output:
    """The locked folder of a run.

    Parameters
    ----------
    path
        The folder.
    work
        A temporary folder in it, for incomplete files.
    record
        Content of :data:`RECORD`.

    Attributes
    ----------
    saved
        Files that this run has written, relative to the folder.
    """

    def __init__(self, path: Path, work: Path, record: dict[str, Any]) -> None:
        self.path, self.work, self._record = path, work, record
        self.saved: list[str] = record["files"]

    @property
    def replaces(self) -> list[str]:
        """Results of an earlier run that have not been removed yet."""
        return self._record["replaces"]

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file under a temporary name, then rename it.

        Parameters
        ----------
        name
            Path of the file in the folder.
        write
            Function of the temporary path that writes the file.
        """
        source = self.work / f"new{Path(name).suffix}"
        write(source)
        self._place(source, name)

    def put_folder(self, name: str) -> None:
        """Move the files of a folder in :attr:`work`, one by one."""
        for source in sorted((self.work / name).iterdir()):
            self._place(source, os.path.join(name, source.name))

    def put_store(self, name: str) -> None:
        """Move a folder in :attr:`work` as a whole."""
        self._place(self.work / name, name)

    def _place(self, source: Path, name: str) -> None:
        target = self.path / name
        if os.path.lexists(target) and name not in [*self.saved, *self.replaces]:
            raise FileExistsError(
                f"{target} was created by another process during the run, and is not overwritten."
            )
        target.parent.mkdir(exist_ok=True)
        flush(source)
        if source.is_dir():
            move_folder(source, target, replace=True, work=self.work)
        else:
            os.replace(source, target)
        if name not in self.saved:
            self.saved.append(name)
        self._remove_old()
        self.write_record()

    def write_record(self) -> None:
        """Write the record of the run in place, because the file is locked."""
        with (self.path / RECORD).open("r+", encoding="utf-8") as file:
            file.write(json.dumps(self._record, indent=1))
            file.truncate()

    def _remove_old(self) -> None:
        """Remove the results of the earlier run, which do not belong to the new ones."""
        for name in set(self.replaces) - set(self.saved):
            if (old := self.path / name).is_dir():
                os.replace(old, self.work / f"old-{name}")
            else:
                old.unlink(missing_ok=True)
            with suppress(OSError):
                (self.path / name).parent.rmdir()
        self._record["replaces"] = []

    def finish(self) -> None:
        """Record the end of the run."""
        self._remove_old()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._record["finished"] = now
        self.write_record()

    def give_up(self, before: bytes) -> None:
        """Restore the record, unless there are results."""
        if self.saved:
            return
        if before:
            (self.path / RECORD).write_bytes(before)
        else:
            (self.path / RECORD).unlink(missing_ok=True)


@contextmanager
def output_folder(
    path: Path, *, overwrite: bool, settings: Mapping[str, Any] | None = None
) -> Iterator[Output]:
    """Create and lock the output folder of a run.

    Parameters
    ----------
    path
        The folder, absolute.
    overwrite
        Replace the results of an earlier run, once the first new file is complete.
    settings
        Settings of the run, as JSON has them. Unfinished results of a run with the same settings
        are replaced without `overwrite`.

    Raises
    ------
    ValueError
        If another run writes to the folder, or it has files that must not be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"--output {path} is a file; name a folder.")
    with made_folder(path), _locked(path) as before:
        known = _files_to_replace(path, before, overwrite=overwrite, settings=settings)
        clean(path)
        record = {
            "settings": settings or {},
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "finished": None,
            "files": [],
            "replaces": known,
        }
        with workspace(path) as work:
            output = Output(path, work, record)
            try:
                output.write_record()
                yield output
                output.finish()
            except BaseException:
                output.give_up(before)
                raise


@contextmanager
def _locked(path: Path) -> Iterator[bytes]:
    """Lock the record of a folder, and return its previous content; empty for a new folder."""
    record = path / RECORD
    is_new = not record.exists()
    if is_new and (there := _entries(path)) and not _is_of_first_version(there):
        raise ValueError(
            f"--output {path} is not empty and was not written by scmoe: it has {listing(there)}. "
            "Name another folder."
        )
    handle = None
    try:
        handle = lock(record)
    except BlockingIOError:
        raise ValueError(_in_use(path, _parse(record.read_bytes()))) from None
    except NoLocksError:
        told = _parse(record.read_bytes())
        if not is_new and not told.get("finished") and _may_be_alive(told):
            raise ValueError(_in_use(path, told)) from None
    try:
        yield record.read_bytes()
    except BaseException:
        if is_new and record.exists() and record.stat().st_size == 0:
            record.unlink()
        raise
    finally:
        if handle is not None:
            os.close(handle)


def _in_use(path: Path, told: Mapping[str, Any]) -> str:
    """Return the message for a folder that another process writes to."""
    who = f"process {told.get('process', '?')} on {told.get('host', '?')}"
    return (
        f"--output {path} is in use: {who} has been writing to it since "
        f"{told.get('started', '?')}. Name another folder, or wait. (If that run has ended, "
        f"delete {RECORD} in the folder.)"
    )


def _may_be_alive(told: Mapping[str, Any]) -> bool:
    """Return whether the process of a record may be alive, where files cannot be locked."""
    if told.get("host") != socket.gethostname():
        return bool(told)
    try:
        os.kill(int(told.get("process", 0)) or os.getpid(), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, TypeError):
        return True
    return True


def _parse(record: bytes) -> dict[str, Any]:
    """Return the content of a record, empty where it is damaged."""
    try:
        told = json.loads(record)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _entries(path: Path) -> list[str]:
    """Return the names in a folder, without the record and temporary folders."""
    own = {RECORD, *(left.name for left in path.glob(".scmoe-*.part"))}
    return sorted(entry.name for entry in path.iterdir() if entry.name not in own)


def _is_of_first_version(there: list[str]) -> bool:
    """Return whether a folder without a record looks like an output folder of scmoe 0.1.0."""
    return REPORT in there and set(there) <= {CELLS, TABLE, REPORT, MODEL, FCS}


def _files_to_replace(
    path: Path, before: bytes, *, overwrite: bool, settings: Mapping[str, Any] | None
) -> list[str]:
    """Return the files of an earlier run to replace; raise ValueError for other files."""
    told, there = _parse(before), _entries(path)
    if before:
        names = [*_names(told, "files"), *_names(told, "replaces")]
    else:
        patterns = (CELLS, TABLE, REPORT, f"{MODEL}/model.*", f"{FCS}/*.fcs")
        names = [str(f.relative_to(path)) for pattern in patterns for f in path.glob(pattern)]
    known = sorted({name for name in names if os.path.lexists(path / name)})
    tops = {Path(name).parts[0] for name in known}
    if foreign := [name for name in there if name not in tops]:
        raise ValueError(
            f"--output {path} has {listing(foreign)}, which scmoe did not write; name another "
            "folder."
        )
    is_same_run = not told.get("finished") and told.get("settings") == settings
    is_same_run = is_same_run and not _names(told, "replaces")
    if known and not overwrite and not is_same_run:
        what = "the results of an earlier run" if told.get("finished") else "unfinished results"
        raise ValueError(
            f"--output {path} is not empty and has {what}; name another folder, or replace them "
            "with --overwrite."
        )
    return known


def _names(told: Mapping[str, Any], key: str) -> list[str]:
    """Return paths of a record that lie in its folder."""
    names = told.get(key)
    names = names if isinstance(names, list) else []
    return [n for n in names if isinstance(n, str) and n and not _leads_out(n)]


def _leads_out(name: str) -> bool:
    return os.path.isabs(name) or ".." in Path(name).parts
