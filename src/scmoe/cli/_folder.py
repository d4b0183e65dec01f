"""The folder of a run: claimed before any work, filled file by file."""

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
"""What the folder holds."""

RECORD = "run.json"
"""What was run, and the files that it wrote; locked while the run goes on."""


class Output:
    """A folder that belongs to this run.

    Parameters
    ----------
    path
        The folder.
    work
        A temporary folder in it, for what is not whole yet.
    record
        What :data:`RECORD` says of this run.

    Attributes
    ----------
    saved
        The files that this run has written so far, relative to the folder.
    """

    def __init__(self, path: Path, work: Path, record: dict[str, Any]) -> None:
        self.path, self.work, self._record = path, work, record
        self.saved: list[str] = record["files"]

    @property
    def replaces(self) -> list[str]:
        """Results of an earlier run that are still there."""
        return self._record["replaces"]

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file under a temporary name, then give it its own.

        Parameters
        ----------
        name
            Its path in the folder.
        write
            Is given the temporary path.
        """
        source = self.work / f"new{Path(name).suffix}"
        write(source)
        self._place(source, name)

    def put_folder(self, name: str) -> None:
        """Move the files of a folder that was written to :attr:`work`."""
        for source in sorted((self.work / name).iterdir()):
            self._place(source, os.path.join(name, source.name))

    def put_store(self, name: str) -> None:
        """Move a folder of :attr:`work` whose files are of no use one by one."""
        self._place(self.work / name, name)

    def _place(self, source: Path, name: str) -> None:
        target = self.path / name
        if os.path.lexists(target) and name not in [*self.saved, *self.replaces]:
            raise FileExistsError(
                f"{target} was put there while the run went on, and is not overwritten."
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
        """Write what is known of the run, in place: the file is locked."""
        with (self.path / RECORD).open("r+", encoding="utf-8") as file:
            file.write(json.dumps(self._record, indent=1))
            file.truncate()

    def _remove_old(self) -> None:
        """Remove the results of the earlier run, which do not fit the first new one."""
        for name in set(self.replaces) - set(self.saved):
            if (old := self.path / name).is_dir():
                os.replace(old, self.work / f"old-{name}")
            else:
                old.unlink(missing_ok=True)
            with suppress(OSError):
                (self.path / name).parent.rmdir()
        self._record["replaces"] = []

    def finish(self) -> None:
        """Note the end of the run."""
        self._remove_old()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._record["finished"] = now
        self.write_record()

    def give_up(self, before: bytes) -> None:
        """Leave the folder as it was, unless something was saved."""
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
    """Claim a folder, which is made with its parents, for one run.

    Parameters
    ----------
    path
        The folder, absolute.
    overwrite
        Replace what an earlier run has written there, once the first new file is whole.
    settings
        What the run was told, as JSON can hold it: the same run may go on where one with the
        same settings was killed.

    Raises
    ------
    ValueError
        Another run writes to the folder, or it holds what must not be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"--output {path} is a file; name a folder.")
    with made_folder(path), _claimed(path) as before:
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
def _claimed(path: Path) -> Iterator[bytes]:
    """Lock the record of a folder, and give what it said before; empty for a new one."""
    record = path / RECORD
    is_new = not record.exists()
    if is_new and (there := _entries(path)) and not _is_from_before(there):
        raise ValueError(
            f"--output {path} is not empty and holds {listing(there)}, so it is no folder that "
            "scmoe wrote; name another folder."
        )
    handle = None
    try:
        handle = lock(record)
    except BlockingIOError:
        raise ValueError(_in_use(path, _read(record.read_bytes()))) from None
    except NoLocksError:
        told = _read(record.read_bytes())
        if not is_new and not told.get("finished") and _may_live(told):
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
    who = f"process {told.get('process', '?')} on {told.get('host', '?')}"
    return (
        f"--output {path} is in use: {who} writes to it since {told.get('started', '?')}. Name "
        f"another folder, or wait. (If that run is gone, delete {RECORD} in it.)"
    )


def _may_live(told: Mapping[str, Any]) -> bool:
    """Whether a process may be there, where locks cannot tell."""
    if told.get("host") != socket.gethostname():
        return bool(told)
    try:
        os.kill(int(told.get("process", 0)) or os.getpid(), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, TypeError):
        return True
    return True


def _read(record: bytes) -> dict[str, Any]:
    """What a record says; nothing, where it is damaged."""
    try:
        told = json.loads(record)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _entries(path: Path) -> list[str]:
    own = {RECORD, *(left.name for left in path.glob(".scmoe-*.part"))}
    return sorted(entry.name for entry in path.iterdir() if entry.name not in own)


def _is_from_before(there: list[str]) -> bool:
    """Whether a folder without a record looks like one of scmoe 0.1.0."""
    return REPORT in there and set(there) <= {CELLS, TABLE, REPORT, MODEL, FCS}


def _files_to_replace(
    path: Path, before: bytes, *, overwrite: bool, settings: Mapping[str, Any] | None
) -> list[str]:
    """The files of an earlier run that this one may replace; ValueError where there are others."""
    told, there = _read(before), _entries(path)
    if before:
        names = [*_names(told, "files"), *_names(told, "replaces")]
    else:
        patterns = (CELLS, TABLE, REPORT, f"{MODEL}/model.*", f"{FCS}/*.fcs")
        names = [str(f.relative_to(path)) for pattern in patterns for f in path.glob(pattern)]
    known = sorted({name for name in names if os.path.lexists(path / name)})
    tops = {Path(name).parts[0] for name in known}
    if foreign := [name for name in there if name not in tops]:
        raise ValueError(
            f"--output {path} holds {listing(foreign)}, which no run of scmoe wrote; name another "
            "folder."
        )
    goes_on = not told.get("finished") and told.get("settings") == settings
    goes_on = goes_on and not _names(told, "replaces")
    if known and not overwrite and not goes_on:
        what = "the results of an earlier run" if told.get("finished") else "unfinished results"
        raise ValueError(
            f"--output {path} is not empty and holds {what}; name another folder, or replace "
            "them with --overwrite."
        )
    return known


def _names(told: Mapping[str, Any], key: str) -> list[str]:
    """Paths of a record which lie in its folder."""
    names = told.get(key)
    names = names if isinstance(names, list) else []
    return [n for n in names if isinstance(n, str) and n and not _leads_out(n)]


def _leads_out(name: str) -> bool:
    return os.path.isabs(name) or ".." in Path(name).parts
