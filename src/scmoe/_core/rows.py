"""The rows of a matrix, in memory or not, block by block as dense arrays of float32."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scmoe._core.values import check_values, dense
from scmoe._core.workers import current_client, dask_blocks, in_order, is_shared, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client

CHUNK = 4096
"""Cells at a time where nothing is learned: layers of a few dozen units stay in the cache."""

VALUES = 2**21
"""Values of a block, which is a whole number of chunks. Hashes of values depend on the two."""


class Rows:
    """Cells x markers, of which one block at a time is in memory.

    Parameters
    ----------
    x
        Matrix of numpy, scipy, h5py, zarr, dask or anndata, ``(n, m)``.
    columns
        Positions of the columns that are looked at, in order; None for all.
    client
        Of the workers that look at them; by default the current one for dask arrays, and this
        process for others.
    """

    def __init__(self, x: Any, columns: np.ndarray | None = None, client: Client | None = None):
        whole = columns is None or np.array_equal(columns, np.arange(x.shape[1]))
        self.x, self.columns = x, None if whole else np.asarray(columns)
        self.dtype = x.dtype
        self.shape = (x.shape[0], x.shape[1] if whole else len(self.columns))
        self.in_memory = isinstance(x, np.ndarray) or sparse.issparse(x)
        self.client = current_client() if client is None and is_dask(x) else client
        self._check: Callable[[Any, int], None] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def checked(self, names: Sequence[str], where: str, **counts: Any) -> Rows:
        """Check the rows as they are read, by :func:`scmoe._core.values.check_values`."""
        rows = copy(self)
        rows._check = partial(_check, names, where, counts)
        return rows

    def stored(self) -> Any:
        """All rows as they are stored, numpy's or scipy's."""
        if not self.in_memory:
            found = np.empty(self.shape, self.dtype)
            blocks = []
            for place, block in self.raw_blocks():
                if sparse.issparse(block):
                    blocks.append(block)
                else:
                    found[place] = block
            return _stacked(blocks) if blocks else found
        return self.x if self.columns is None else self.x[:, self.columns]

    def raw_blocks(self) -> Iterator[tuple[slice, Any]]:
        """Each block as it is stored, numpy's or scipy's, with its place among the rows."""
        places, size = self._places()
        for place, block in zip(places, self._read(size), strict=True):
            if self._check is not None:
                self._check(block, place.start)
            yield place, block

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Each block, ``(rows, m)`` float32, with its place among the rows."""
        for place, block in self.raw_blocks():
            yield place, np.ascontiguousarray(dense(block))

    def map(
        self, function: Callable[..., Any], *of_cells: np.ndarray | None
    ) -> Iterator[tuple[slice, Any]]:
        """Apply a function to each block, in order, in this process or on workers.

        The blocks are the same in both cases, and so are the results, bit by bit.

        Parameters
        ----------
        function
            Is given a block as iterating gives it, and its part of each of ``of_cells``. Can be
            pickled.
        *of_cells
            Arrays with a row for each cell, or None.

        Yields
        ------
        Place of the block among the rows, and the result.
        """
        places, size = self._places()
        parts = ([None if a is None else a[place] for a in of_cells] for place in places)
        if self.client is None:
            for (place, block), part in zip(self, parts, strict=True):
                yield place, function(block, *part)
            return
        columns, submit = self.columns, partial(self.client.submit, pure=False)
        if is_dask(self.x):
            sources = dask_blocks(self.client, self.x, places)
        elif is_shared(self.x):
            sources = (([submit(read_rows, self.x, place)], 0) for place in places)
        else:
            columns, sources = None, (([block], 0) for block in self._read(size))
        tasks = (
            (stored, first, place, part)
            for place, (stored, first), part in zip(places, sources, parts, strict=True)
        )
        results = in_order(self.client, partial(_on_worker, function, columns, self._check), tasks)
        yield from zip(places, results, strict=True)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Read rows by their sorted positions, ``(len(rows), m)`` float32."""
        if self.in_memory:
            some = self.x[rows] if self.columns is None else self.x[rows][:, self.columns]
            return np.ascontiguousarray(dense(some))
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        found = [some for _, some in self.map(_rows_of, chosen)]
        return np.concatenate([np.empty((0, self.shape[1]), np.float32), *found])

    def _places(self) -> tuple[list[slice], int]:
        """Where the blocks are, and their size, which depends on nothing but the shape."""
        n, m = self.shape
        size = CHUNK * max(VALUES // (CHUNK * max(m, 1)), 1)
        return [slice(start, min(start + size, n)) for start in range(0, n, size)], size

    def _read(self, size: int) -> Iterator[Any]:
        """Iterate over the blocks as they are stored."""
        for block in _of_size(_parts(self.x, size, self.client), size):
            yield block if self.columns is None else block[:, self.columns]


def _check(
    names: Sequence[str], where: str, counts: dict[str, Any], block: Any, start: int
) -> None:
    """Check the values of the block that starts at a row."""
    of_block = f"{where}, from cell {start} on," if start else where
    check_values(block, names, of_block, **counts)


def _rows_of(block: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return block[chosen]


def _on_worker(
    function: Callable[..., Any],
    columns: np.ndarray | None,
    check: Callable[[Any, int], None] | None,
    stored: list[Any],
    first: int,
    place: slice,
    part: list[np.ndarray | None],
) -> Any:
    """Call a function on the block that begins at a row of what is stored."""
    stored[0] = stored[0][first:]
    block = _stacked(stored)[: place.stop - place.start]
    block = block if columns is None else block[:, columns]
    if check is not None:
        check(block, place.start)
    return function(np.ascontiguousarray(dense(block)), *part)


def is_dask(x: Any) -> bool:
    """Whether this is an array of dask, which need not be installed."""
    return type(x).__module__.split(".")[0] == "dask"


def _parts(x: Any, size: int, client: Client | None) -> Iterator[Any]:
    """Yield consecutive rows of a matrix: one chunk of a dask array, or `size` rows, at a time."""
    if is_dask(x):
        for i in range(x.numblocks[0]):
            yield x.blocks[i].compute(scheduler=client)
    else:
        for start in range(0, x.shape[0], size):
            yield x[start : start + size]


def _of_size(parts: Iterable[Any], size: int) -> Iterator[Any]:
    """Regroup rows into parts of exactly this size, except for the last."""
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
