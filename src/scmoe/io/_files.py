"""Find, name and open FCS files, compressed or not."""

from __future__ import annotations

import glob
import gzip
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType

import numpy as np
from natsort import natsorted

from ._errors import Fault, FCSReadError, printable

SUFFIXES = (".fcs", ".lmd", ".fcs.gz", ".lmd.gz")


def find_files(path: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    """Resolve a file, a folder, a glob pattern, or several of them, to a list of FCS files.

    Folders and patterns are sorted in natural order (``well2`` before ``well10``); a list keeps
    its order. Hidden files are skipped.
    """
    if isinstance(path, str | PathLike):
        files = _resolve(path)
    elif isinstance(path, Iterable):
        files = [file for item in path for file in _resolve(item)]
        if not files:
            raise ValueError("The list of FCS files is empty.")
    else:
        raise TypeError(
            f"`path` is a file, a folder, a glob pattern or a list of files, not {type(path)!r}."
        )
    repeated = [str(f) for f, n in Counter(file.resolve() for file in files).items() if n > 1]
    if repeated:
        raise ValueError(f"The same file is given more than once: {', '.join(repeated)}.")
    return files


def _resolve(item: str | PathLike[str]) -> list[Path]:
    if not isinstance(item, str | PathLike):
        raise TypeError(f"The name of a file is a str or a Path, not {type(item)!r}.")
    path = Path(item)
    if path.is_dir():
        named = [
            file
            for file in path.iterdir()
            if file.name.lower().endswith(SUFFIXES) and file.name[0] != "."
        ]
        lost = [file for file in named if file.is_symlink() and not file.exists()]
        if lost:
            raise FCSReadError(lost[0], "this is a link to a file that is not there")
        found = [file for file in named if file.is_file()]
        if not found:
            raise FCSReadError(path, f"the folder holds no file ending in {_listed(SUFFIXES)}")
        return natsorted(found, key=str)
    if path.exists():
        if not path.is_file():
            # reading a pipe may never end
            raise FCSReadError(path, "this is not a regular file")
        return [path]
    if glob.has_magic(str(item)):
        found = [Path(file) for file in glob.glob(str(item), recursive=True)]
        found = natsorted((file for file in found if file.is_file()), key=str)
        if found:
            return found
        raise FileNotFoundError(f"No file matches the pattern {str(item)!r}.")
    if path.is_symlink():
        raise FileNotFoundError(f"{path} is a link to a file that is not there.")
    raise FileNotFoundError(f"There is no such file or folder: {path}")


def _listed(suffixes: Iterable[str]) -> str:
    return " or ".join(f"'{suffix}'" for suffix in suffixes) + " (any case)"


def sample_names(files: Sequence[Path], datasets: Sequence[int | None] = ()) -> list[str]:
    """Return the name of each sample: the stem of its file, if needed with folder and suffix.

    Parameters
    ----------
    files
        The file of each sample.
    datasets
        The number of the data set, appended to the name, for files that hold several.

    Notes
    -----
    All names fit into h5ad files and terminals: a name of dots only gets a ``_`` in front, and
    characters that cannot be printed are removed.
    """
    ends = ["" if number is None else f"_{number}" for number in datasets] or [""] * len(files)
    ways: list[Callable[[Path], str]] = [
        stem,
        lambda file: f"{_folder(file)}_{stem(file)}",
        lambda file: f"{_folder(file)}_{file.name}",
        lambda file: "_".join(file.resolve().parts[1:]),
    ]
    names = [""] * len(files)
    for rename in ways:
        count = Counter(names)
        names = [
            _name(f"{rename(file)}{end}") if count[name] > 1 or not name else name
            for file, end, name in zip(files, ends, names, strict=True)
        ]
    for i, name in enumerate(names):
        k = 2
        while names[i] in names[:i]:
            names[i], k = f"{name}-{k}", k + 1
    return names


def _name(text: str) -> str:
    name = printable(text)
    return name if name.strip(".") else f"_{name}"


def stem(file: Path) -> str:
    """Return the name of a file without ``.fcs`` or ``.fcs.gz``."""
    name = file.name
    return Path(name[:-3] if name.lower().endswith(".gz") else name).stem


def _folder(file: Path) -> str:
    """Return the name of the folder of a file, also for ``../file.fcs``."""
    return Path(os.path.abspath(file)).parent.name


def path_text(path: str) -> str:
    """Return a path as text that h5ad can hold, with bytes that are not UTF-8 escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def text_path(text: str) -> str:
    """Return the path of a text from :func:`path_text` that has escaped bytes."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), text)


_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 18
_MOST_BYTES = 64 << 20
_MOST_TIMES = 100
"""Limits of a decompressed file: these bytes, plus this many times its compressed size."""


class Source:
    """A file with random access; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Fault("this is a folder" if stat.S_ISDIR(mode) else "this is not a regular file")
        self._handle = path.open("rb", buffering=0)
        self.size = path.stat().st_size

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.close()

    def holds(self, stop: int) -> bool:
        """Whether the file has at least `stop` bytes."""
        return stop <= self.size

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`, fewer at the end of the file."""
        return self.array(start, max(min(stop, self.size) - start, 0)).tobytes()

    def array(self, start: int, count: int) -> np.ndarray:
        """Return `count` bytes from `start` as uint8, fewer at the end of the file."""
        self._handle.seek(start)
        values = np.empty(count, dtype=np.uint8)
        view, got = memoryview(values), 0
        while got < count:
            step = self._handle.readinto(view[got:])
            if not step:
                break
            got += step
        return values[:got]

    def check(self) -> None:
        """Verify the checksum of the file, if it has one."""


class GzipSource(Source):
    """A file compressed with gzip, decompressed only as far as it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.limit = _MOST_BYTES + _MOST_TIMES * self.size
        self._stream = gzip.GzipFile(fileobj=self._handle, mode="rb")
        self._bytes = bytearray()
        self.size = 0

    def _next(self) -> bytes:
        try:
            chunk = self._stream.read(_CHUNK)
        except (EOFError, OSError, zlib.error) as error:
            raise Fault(f"the compressed file is damaged or truncated ({error})") from None
        self.size += len(chunk)
        if self.size > self.limit:
            raise Fault(
                f"the compressed file holds more than {self.limit} bytes, {_MOST_TIMES} times its "
                "own size; if that is right, decompress it first"
            )
        return chunk

    def holds(self, stop: int) -> bool:
        if stop > self.limit:
            return False
        while len(self._bytes) < stop:
            chunk = self._next()
            if not chunk:
                return False
            self._bytes += chunk
        return True

    def read(self, start: int, stop: int) -> bytes:
        self.holds(stop)
        return bytes(self._bytes[start:stop])

    def array(self, start: int, count: int) -> np.ndarray:
        self.holds(start + count)
        # a copy: a bytearray with a view on it cannot grow
        return np.frombuffer(self._bytes[start : start + count], dtype=np.uint8)

    def check(self) -> None:
        """Decompress the rest of the file, which verifies its checksum."""
        while self._next():
            pass


def open_source(path: Path) -> Source:
    """Open a file, compressed or not; Fault if it is not a regular file."""
    source = Source(path)
    if source.read(0, 2) != _GZIP:
        return source
    with source:
        return GzipSource(path)
