"""The rows of a matrix, in memory or not, block by block as dense arrays of float32."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scmoe._checks import check_values, dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

CHUNK = 4096
"""Cells at a time where nothing is learned: layers of a few dozen units stay in the cache."""

VALUES = 2**21
"""Values of a block, which is a whole number of chunks."""


class Rows:
    """Cells x markers, of which one block at a time is in memory.

    Parameters
    ----------
    x
        Matrix of numpy, scipy, h5py, zarr, dask or anndata, ``(n, m)``.
    columns
        Positions of the columns that are looked at, in order; None for all.
    """

    def __init__(self, x: Any, columns: np.ndarray | None = None):
        whole = columns is None or np.array_equal(columns, np.arange(x.shape[1]))
        self.x, self.columns = x, None if whole else np.asarray(columns)
        self.dtype = x.dtype
        self.shape = (x.shape[0], x.shape[1] if whole else len(self.columns))
        self.in_memory = isinstance(x, np.ndarray) or sparse.issparse(x)
        self._check: Callable[[Any, int], None] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def checked(self, names: Sequence[str], where: str, **counts: Any) -> Rows:
        """The same rows, whose blocks :func:`scmoe._checks.check_values` looks at when read."""

        def check(block: Any, start: int) -> None:
            of_block = f"{where}, from cell {start} on," if start else where
            check_values(block, names, of_block, **counts)

        rows = copy(self)
        rows._check = check
        return rows

    def stored(self) -> Any:
        """All rows as they are stored, numpy's or scipy's."""
        if not self.in_memory:
            blocks = [block for _, block in self.raw_blocks()]
            return _stacked(blocks) if blocks else np.empty(self.shape, self.dtype)
        return self.x if self.columns is None else self.x[:, self.columns]

    def raw_blocks(self) -> Iterator[tuple[slice, Any]]:
        """Each block as it is stored, numpy's or scipy's, with its place among the rows."""
        size = CHUNK * max(VALUES // (CHUNK * max(self.shape[1], 1)), 1)
        start = 0
        for block in _of_size(_parts(self.x, size), size):
            stop = start + block.shape[0]
            block = block if self.columns is None else block[:, self.columns]
            if self._check is not None:
                self._check(block, start)
            yield slice(start, stop), block
            start = stop

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Each block, ``(rows, m)`` float32, with its place among the rows."""
        for place, block in self.raw_blocks():
            yield place, np.ascontiguousarray(dense(block))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, by their positions in rising order, ``(len(rows), m)`` float32."""
        if self.in_memory:
            some = self.x[rows] if self.columns is None else self.x[rows][:, self.columns]
            return np.ascontiguousarray(dense(some))
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for place, block in self:
            first, last = np.searchsorted(rows, (place.start, place.stop))
            found[first:last] = block[rows[first:last] - place.start]
        return found


def is_dask(x: Any) -> bool:
    """Whether this is an array of dask, which need not be installed."""
    return type(x).__module__.split(".")[0] == "dask"


def _parts(x: Any, size: int) -> Iterator[Any]:
    """Yield consecutive rows of a matrix: one chunk of a dask array, or `size` rows, at a time."""
    if is_dask(x):
        for i in range(x.numblocks[0]):
            yield x.blocks[i].compute()
    else:
        for start in range(0, x.shape[0], size):
            yield x[start : start + size]


def _of_size(parts: Iterable[Any], size: int) -> Iterator[Any]:
    """The same rows in parts of exactly this size, but for the last one."""
    waiting: list[Any] = []
    n = 0
    for part in parts:
        waiting.append(part)
        n += part.shape[0]
        if n < size:
            continue
        rows = _stacked(waiting)
        stop = n - n % size
        for start in range(0, stop, size):
            yield rows[start : start + size]
        n -= stop
        waiting = [rows[stop:]] if n else []
    if n:
        yield _stacked(waiting)


def _stacked(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, "csr") if sparse.issparse(parts[0]) else np.concatenate(parts)
