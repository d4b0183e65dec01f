"""Blocks of cells on the workers of dask.distributed, which need not be installed."""

from __future__ import annotations

import pickle
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

IN_FLIGHT = 2
"""Blocks for each thread of the workers that are sent out before the first result is fetched."""


def check_client(client: Any) -> None:
    """Raise TypeError for what is no client, and ValueError for one that can't be used."""
    if client is None:
        return
    distributed = sys.modules.get("distributed")
    if distributed is None or not isinstance(client, distributed.Client):
        raise TypeError(
            f"`client` must be a `distributed.Client`, got {client!r}: make one of the address of "
            'a scheduler or of a cluster, `distributed.Client("tcp://...")`.'
        )
    if client.asynchronous:
        raise ValueError("`client` is asynchronous: make one with `asynchronous=False`.")
    if client.status != "running":
        raise ValueError(
            f"`client` is {client.status}: make a new one, `distributed.Client(...)`."
        )


def current_client() -> Client | None:
    """Return the current dask client, if there is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return None if client.asynchronous or client.status != "running" else client


def in_order(
    client: Client, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """Results of a function on the workers, in the order of its arguments.

    A few calls are under way at a time, so that the memory of this process and of the scheduler
    does not grow with their number. Dask repeats what a worker that ended has not done.

    Parameters
    ----------
    client
        Of the workers.
    function
        What is called; it goes to the workers once.
    arguments
        Of each call; futures stand for their results.

    Raises
    ------
    RuntimeError
        Workers that end again and again, or a cluster that is gone.
    Exception
        What the function raises.
    """
    from concurrent.futures import CancelledError

    import dask
    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError

    def submit(*args: Any) -> Any:
        # a block is sent only where none but this process can read it: dask's advice is in vain
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return client.submit(*args, pure=False)

    waiting: deque[Any] = deque()
    try:
        # a task, not scattered: what a worker takes with it is made again; bytes, so that the
        # scheduler need not load torch
        loaded = submit(pickle.loads, pickle.dumps(function))
        for args in arguments:
            waiting.append(submit(_call, loaded, *args))
            if len(waiting) >= IN_FLIGHT * max(sum(client.nthreads().values()), 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KilledWorker as error:
        raise RuntimeError(
            f"A block of cells has ended {error.allowed_failures + 1} workers of the cluster, one "
            "after the other, and nothing was written. Mostly they lack memory: give them more, "
            "or fewer threads each; their logs say more."
        ) from error
    except (CancelledError, ClosedClientError, CommClosedError) as error:
        raise RuntimeError(
            "The cluster was lost on the way, as its client was closed or its scheduler has "
            "ended, and nothing was written. Start it again, and call with a new `client`."
        ) from error
    finally:
        waiting.clear()


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def dask_blocks(client: Client, x: Any, places: Iterable[slice]) -> Iterator[tuple[list, int]]:
    """Futures of the chunks of a dask array that hold each block, and its first row in them.

    Each chunk is computed once, and is let go of with the last block that needs it.
    """
    ends = np.cumsum(x.chunks[0])
    chunks: dict[int, Any] = {}
    for place in places:
        first, last = np.searchsorted(ends, (place.start, place.stop - 1), side="right")
        lacking = [i for i in range(first, last + 1) if i not in chunks]
        chunks = {i: chunk for i, chunk in chunks.items() if i >= first}
        chunks |= zip(lacking, client.compute([x.blocks[i] for i in lacking]), strict=True)
        yield list(chunks.values()), place.start - int(ends[first - 1] if first else 0)


def is_shared(x: Any) -> bool:
    """Whether this is an array of zarr that other processes can open by themselves."""
    is_zarr = type(x).__module__.split(".")[0] == "zarr"
    return is_zarr and type(x.store).__name__ in ("LocalStore", "FsspecStore")


def read_rows(x: Any, rows: slice) -> np.ndarray:
    """Rows of an array of zarr, on a worker."""
    import zarr

    # where its folder is missing, zarr would take all values for zeros
    try:
        zarr.open_array(x.store, path=x.path, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"A worker does not find {x.store_path}: put it where all workers see it under the "
            "same name."
        ) from error
    return x[rows]
