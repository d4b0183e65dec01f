"""The bytes of a file, compressed with gzip or not."""

from __future__ import annotations

import gzip
import stat
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np

from ._errors import Fault

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 18
_MOST_BYTES = 64 << 20
_MOST_TIMES = 100
"""A compressed file may grow to so many bytes, plus so many times its own size."""


class Source:
    """A file that is read from here and there; closes itself after ``with``."""

    def __init__(self, path: Path) -> None:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Fault("this is a folder" if stat.S_ISDIR(mode) else "this is no regular file")
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
        """Whether there are `stop` bytes or more."""
        return stop <= self.size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes from `start` to before `stop`, fewer at the end of the file."""
        return self.array(start, max(min(stop, self.size) - start, 0)).tobytes()

    def array(self, start: int, count: int) -> np.ndarray:
        """Return `count` bytes from `start` on, fewer at the end of the file."""
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
        """Verify what the file says about its own bytes."""


class GzipSource(Source):
    """A file compressed with gzip: decompressed as far as somebody asks for it."""

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
        # a copy: what is looked at cannot grow
        return np.frombuffer(self._bytes[start : start + count], dtype=np.uint8)

    def check(self) -> None:
        """Go through to the checksum at the end, which tells damaged values from good ones."""
        while self._next():
            pass


def open_source(path: Path) -> Source:
    """Open a file; Fault for what is no file, OSError for what cannot be opened."""
    source = Source(path)
    if source.read(0, 2) != _GZIP:
        return source
    with source:
        return GzipSource(path)
