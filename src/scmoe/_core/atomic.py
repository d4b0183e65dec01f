"""Files and folders that are written whole or not at all, and locks that die with their process.

What is written lies in a temporary folder beside its target, ``.scmoe-*.part``, until it is whole.
The folder is locked while its process lives: one that is not locked was left by a process that
was killed, and the next write beside it removes it. File systems without locks keep such folders.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None

PREFIX, SUFFIX = ".scmoe-", ".part"
"""How the name of a temporary folder begins and ends."""

SPARE = 2**20
"""Bytes that a file needs beside its values."""

LOCK, OLD = "lock", "old"
"""What a temporary folder holds beside what is written: its lock, and a folder being replaced."""


class NoLocksError(OSError):
    """Files cannot be locked here."""


def lock(path: Path) -> int:
    """Lock a file, which is made where there is none, until its handle is closed.

    Returns
    -------
    The handle, open for reading and writing.

    Raises
    ------
    BlockingIOError
        Another process, or another handle of this one, holds the lock.
    NoLocksError
        The file system, or this system, has no locks.
    OSError
        The file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _flock(handle, path)
        if not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise BlockingIOError(f"{path} was replaced while it was locked.")
    except BaseException:
        os.close(handle)
        raise
    return handle


def _flock(handle: int, path: Path) -> None:
    if fcntl is None:
        raise NoLocksError(f"{path}: this system has no locks.")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise NoLocksError(f"{path}: {error.strerror}") from error


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in another folder, and remove it at the end.

    Temporary folders of processes that were killed are removed first.
    """
    clean(parent)
    work, handle = _locked_folder(parent)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    for _ in range(100):
        work = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=parent))
        try:
            return work, lock(work / LOCK)
        except (BlockingIOError, FileNotFoundError):
            # another process took the new folder, not locked yet, for one that was left behind
            continue
        except NoLocksError:
            return work, None
    raise OSError(f"No temporary folder could be locked in {str(parent)!r}.")


def clean(parent: Path) -> None:
    """Remove the temporary folders that killed processes have left in a folder.

    A folder that such a process was about to replace gets its name back.
    """
    for left in parent.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            handle = lock(left / LOCK)
        except OSError:
            # its process lives, or nobody can tell
            continue
        try:
            for old in (left / OLD).glob("*"):
                if not os.path.lexists(parent / old.name):
                    os.rename(old, parent / old.name)
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(handle)


def write_files(writers: Iterable[tuple[Path, Callable[[BinaryIO], None]]], parent: Path) -> None:
    """Let each writer fill a file; all of them get their names once all are written.

    If anything fails, no new file stays.

    Parameters
    ----------
    writers
        The path of each file, and the function that writes it.
    parent
        The folder that all of them lie in.
    """
    placed: list[Path] = []
    with workspace(parent) as work:
        paths = []
        for path, write in writers:
            with (work / str(len(paths))).open("xb") as handle:
                write(handle)
                handle.flush()
                os.fsync(handle.fileno())
            paths.append(path)
        try:
            for number, path in enumerate(paths):
                is_new = not path.exists()
                os.replace(work / str(number), path)
                if is_new:
                    placed.append(path)
        except BaseException:
            for path in placed:
                path.unlink(missing_ok=True)
            raise


def write_folder(
    folder: Path, files: Mapping[str, bytes | Callable[[Path], None]], *, replace: bool = False
) -> None:
    """Write a folder of files, or nothing.

    Parameters
    ----------
    folder
        The folder; parents are made.
    files
        Contents by name, or functions that write to the path that they are given.
    replace
        Whether to replace a folder of that name. The old one goes once the new one is there.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with workspace(folder.parent) as work:
        new = work / "new"
        new.mkdir()
        for name, content in files.items():
            if callable(content):
                content(new / name)
            else:
                (new / name).write_bytes(content)
            flush(new / name)
        flush(new)
        move_folder(new, folder, replace=replace, work=work)


def move_folder(source: Path, folder: Path, *, replace: bool, work: Path) -> None:
    """Give a folder another name; what is replaced goes to a :func:`workspace` beside it."""
    old = work / OLD / folder.name
    try:
        if replace and folder.exists():
            old.parent.mkdir()
            os.rename(folder, old)
        os.rename(source, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise
    flush(folder.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once: there is never a part of it."""
    with workspace(folder.parent) as work:
        os.rename(folder, work / "removed")


def check_space(path: Path, n_bytes: int) -> None:
    """Raise OSError where a file of that size cannot be written.

    HDF5 (seen in 1.14) does not survive a full disk: the process ends by SIGSEGV.
    """
    n_bytes += SPARE
    check_free(path, n_bytes)
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and n_bytes > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def check_free(path: Path, n_bytes: int) -> None:
    """Raise OSError where the disk has no room for a file or a folder of that size."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        told = (
            f"{os.strerror(errno.ENOSPC)}: {n_bytes / 1e9:,.3g} GB are needed, {free / 1e9:,.3g}"
        )
        raise OSError(errno.ENOSPC, f"{told} GB are free", str(path))


def flush(path: Path) -> None:
    """Wait until a file or a folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise FileExistsError if any of the files is there."""
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise FileExistsError(f"Would overwrite {', '.join(there)}; pass `overwrite=True`.")


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, with those above it; on an error, remove those that are still empty."""
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        raise
