"""What cells must be like, said before anything is computed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from typing import TYPE_CHECKING, Any
from unicodedata import category

import numpy as np
import pandas as pd
from natsort import natsorted
from scipy import sparse

from scmoe._keys import Key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from anndata import AnnData

SHOWN = 5
"""Names listed in an error before it says how many more there are."""

FEW_OF_BATCH = 3
"""Cells of a batch below which nothing is learned of it; scvi-tools warns of such, too."""

FARTHEST = 1e15
"""Values up to which float32 holds squared distances, also of markers that are scaled."""


LARGEST = 20.0
"""Transformed markers stay below it: arcsinh and log below 19, standardised values mostly."""

FEW_CELLS = 0.01
"""Share of the cells that says nothing of a marker: outliers."""

FEW_MARKERS = 0.05
"""Share of the markers that says nothing of all: residuals of counts go far in a few genes."""


class ScaleWarning(UserWarning):
    """Warn of values that seem to be on another scale than the one that a function takes."""

    def __init__(self, what: str, how: str = ""):
        super().__init__(what, how)
        self.what = what

    def __str__(self) -> str:
        return " ".join(self.args).rstrip()


def listing(names: Sequence[str]) -> str:
    """A readable list of names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(str(n)) for n in names[:SHOWN]) + more


def did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return a sentence, after a blank, with known names like unknown ones; ``""`` for none."""
    folded = {str(name).casefold(): str(name) for name in known}
    close = [get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.7) for name in unknown]
    names = [folded[name] for found in close for name in found]
    return f" Did you mean {listing(names)}?" if names else ""


def check_is_adata(adata: Any, name: str = "adata") -> None:
    """Raise ValueError for what is no AnnData: a path, an array, a MuData."""
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    how = "Make one of values: `anndata.AnnData(values)`, cells x markers."
    if isinstance(adata, str | PathLike):
        how = "Read the file first: `anndata.read_h5ad(path)`, or `scmoe.io.read_fcs(path)`."
    elif "MuData" in (kind.__name__ for kind in type(adata).__mro__) and len(adata.mod):
        names = [str(modality) for modality in adata.mod]
        how = (
            f"Give one of its modalities, such as `mdata[{names[0]!r}]`; it has {listing(names)}."
        )
    raise ValueError(f"`{name}` must be an AnnData, got {type(adata).__name__}. {how}")


def obs_columns(adata: AnnData) -> list[str]:
    """Return the columns of ``.obs``, without those that scvi-tools and its models keep there."""
    return [c for c in map(str, adata.obs) if c != "_indices" and not c.startswith("_scvi")]


def clustering_record(adata: AnnData, key: str, name: str = "adata") -> Mapping[str, Any]:
    """Return the record of a clustering, or of something else of that name; empty without one.

    Raises ValueError for what joining cells of different clusterings has left of their records.
    """
    check_is_adata(adata, name)
    record = adata.uns.get(Key.uns.result(key))
    if not isinstance(record, Mapping):
        return {}
    # what differs between any two clusterings; `ad.concat` keeps what is the same in both
    has_model = isinstance(record.get("model"), Mapping)
    if has_model and not {"history", "markers"} <= set(record):
        raise ValueError(
            f"The record of the clustering in `{name}.uns[{key!r}]` is not whole, as where cells "
            "of different clusterings were joined (`ad.concat`): their clusters are not the same "
            "ones. Cluster the joined cells, or give cells the clusters of one reference before "
            "joining (`scmoe.tl.assign`)."
        )
    return record


def visible(text: str) -> str:
    r"""Return text whose control, format and bidirectional characters show as ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in text
    )


def apart(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return names of columns that are unique and are none of ``taken``: ``share (marker)``."""
    found: list[str] = []
    used = set(taken)
    # a name that can stay has it, whatever others come before it
    free = set(names) - used
    for name in names:
        new, number = name, 1
        while new in used or (new != name and new in free):
            number += 1
            new = f"{name} (marker)" if number == 2 else f"{name} (marker {number - 1})"
        used.add(new)
        found.append(new)
    return found


def check_adata(adata: AnnData, *, in_memory: bool = True) -> None:
    """Raise ValueError for what is no AnnData, for a view, and for names twice.

    Where it need not be in memory, for one whose file is closed.
    """
    if in_memory:
        check_in_memory(adata)
    else:
        check_open(adata)
    if adata.is_view:
        raise ValueError(
            "`adata` is a view of another AnnData; pass `adata.copy()` of the subset, so that "
            "the results have a place of their own."
        )
    check_names(adata)
    check_slots(adata)


def check_slots(adata: AnnData) -> None:
    """Raise ValueError for a damaged sparse matrix in any slot, as :func:`check_sparse`.

    Even a subset of the cells would read beyond the memory of such a matrix.
    """
    check_sparse(adata.X, "`adata.X`")
    # graphs above all, but subsetting and copying go through all of them
    for place in ("layers", "obsm", "varm", "obsp", "varp"):
        for key, value in getattr(adata, place).items():
            check_sparse(value, f"`.{place}[{key!r}]`")
    if adata.raw is not None and not adata.isbacked:
        check_sparse(adata.raw.X, "`adata.raw.X`")


def check_sparse(x: Any, where: str) -> None:
    """Raise ValueError for a sparse matrix whose indices are not of its rows and columns.

    scipy looks at them when a matrix is built, not when one is read from a file, and a program
    that follows them ends without a word. Whatever is not sparse passes.
    """
    if not sparse.issparse(x):
        return
    try:
        if x.format == "coo":
            limits = zip((x.row, x.col), x.shape, strict=True)
            fits = all(len(i) == len(x.data) and _within(i, n) for i, n in limits)
        elif x.format in ("csr", "csc"):
            starts, (major, minor) = x.indptr, x.shape if x.format == "csr" else x.shape[::-1]
            fits = (
                x.indices.ndim == x.data.ndim == starts.ndim == 1
                and len(starts) == major + 1
                and starts[0] == 0
                and _within(starts, len(x.data) + 1)
                and (starts[1:] >= starts[:-1]).all()
                and len(x.indices) == len(x.data)
                and _within(x.indices, minor)
            )
        else:
            # other formats come from nobody's file
            fits = True
    except (AttributeError, TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise ValueError(
            f"{where} is a damaged sparse matrix: it has indices beyond its shape, {x.shape}. Do "
            "not use the file that it came from; make the matrix again."
        )


def _within(indices: np.ndarray, n: int) -> bool:
    """Whether all are whole numbers from 0 to below n."""
    whole = indices.dtype.kind in "iu"
    return whole and (not indices.size or bool(indices.min() >= 0 and indices.max() < n))


def check_in_memory(adata: AnnData) -> None:
    """Raise ValueError for cells that are in a file: backed ones, and those read lazily."""
    check_is_adata(adata)
    if adata.isbacked:
        raise ValueError("`adata` is backed by a file; pass `adata.to_memory()`.")
    if not isinstance(adata.obs, pd.DataFrame):
        raise ValueError("`adata` was read lazily; pass `adata.to_memory()`.")


def check_open(adata: AnnData) -> None:
    """Raise ValueError for what is no AnnData, and for one whose file is closed."""
    check_is_adata(adata)
    if adata.isbacked and not adata.file.is_open:
        raise ValueError(
            f"`adata` is backed by {str(adata.filename)!r}, which is closed: read it again "
            '(`anndata.read_h5ad(path, backed="r")`).'
        )


def check_copy(adata: AnnData, copy: bool, name: str) -> None:
    """Raise ValueError for a copy of what is backed by a file, which needs a file of its own."""
    if copy and adata.isbacked:
        raise ValueError(
            f"`copy=True` can't go with `{name}` backed by a file: leave it out, or pass "
            f"`{name}.to_memory()`."
        )


def table(frame: Any) -> pd.DataFrame:
    """Return `.obs` or `.var` in memory, also of an AnnData that was read lazily."""
    return frame if isinstance(frame, pd.DataFrame) else frame.to_memory()


def check_names(adata: AnnData) -> None:
    """Raise ValueError for names of cells or markers that are not unique."""
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(
            f"Cell names are not unique: {listing(list(twice))}. "
            "Call `adata.obs_names_make_unique()` first."
        )
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"Marker names are not unique: {listing(list(twice))}. "
            "Call `adata.var_names_make_unique()` first."
        )


def check_batches(adata: AnnData, batch_key: str) -> None:
    """KeyError for an unknown column of batches, ValueError for cells that have none."""
    if batch_key not in adata.obs:
        raise KeyError(
            f"Did not find the batches {batch_key!r} in `.obs`, which has {obs_columns(adata)}."
        )
    missing = table(adata.obs)[batch_key].isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"`.obs[{batch_key!r}]` is missing for {missing.sum()} of {adata.n_obs} cells, such "
            f"as {listing(list(adata.obs_names[missing][:1]))}: every cell needs a batch."
        )


def layer_names(adata: AnnData) -> list[str]:
    """Return the names in ``.layers``; anndata 0.13 lists ``.X`` among them, as None."""
    return [name for name in adata.layers if name is not None]


def written(name: str) -> str:
    """Return how a user writes the matrix of a record: ``"X"`` is ``.X``, others are layers."""
    return ".X" if name == "X" else f".layers[{name!r}]"


def layer_values(adata: AnnData, layer: str | None, *, in_memory: bool = True) -> Any:
    """Return ``.X`` or a layer, numbers in memory, dense or sparse.

    With ``in_memory=False`` also what :class:`scmoe._chunks.Rows` reads.

    Raises
    ------
    KeyError
        For an unknown layer.
    ValueError
        For an empty ``.X``, cells that are in a file, and what is not numbers; for an array of
        dask whose chunks have no known size or split the markers.
    """
    if in_memory:
        check_in_memory(adata)
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"Did not find layer {layer!r}; `.layers` holds {layer_names(adata)}.")
    values = adata.X if layer is None else adata.layers[layer]
    where = written("X" if layer is None else layer)
    if values is None:
        raise ValueError("`adata.X` is empty; name a `layer`.")
    if not in_memory:
        check_chunks(values, where)
    elif not (isinstance(values, np.ndarray) or sparse.issparse(values)):
        raise ValueError(
            f"{where} is a {type(values).__module__.split('.')[0]} {type(values).__name__}; pass "
            "`adata.to_memory()`, with values of numpy or scipy."
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{where} holds {values.dtype}, not numbers.")
    check_sparse(values, where)
    return values


def check_chunks(x: Any, where: str) -> None:
    """Raise ValueError for an array that can't be read a few whole cells at a time, or not yet.

    One of dask may have chunks that split the cells, or of unknown sizes; chunks of one of zarr,
    which would read as zeros, may not be there.
    """
    library = type(x).__module__.split(".")[0]
    if library == "zarr" and x.nchunks_initialized < x.nchunks:
        raise ValueError(
            f"{where} is an array of zarr that lacks {x.nchunks - x.nchunks_initialized} of its "
            f"{x.nchunks} chunks: it is being written, or its writing was interrupted. Wait until "
            "it is whole, or write it again (chunks of zeros alone are written with "
            '`zarr.config.set({"array.write_empty_chunks": True})`).'
        )
    if library != "dask":
        return
    if any(math.isnan(size) for sizes in x.chunks for size in sizes):
        raise ValueError(
            f"{where} is a dask array with chunks of unknown sizes: call its "
            "`compute_chunk_sizes()` first."
        )
    if len(x.chunks[1]) > 1:
        raise ValueError(
            f"{where} is a dask array whose chunks split the markers, {len(x.chunks[1])} to a "
            "cell: use `.rechunk({1: -1})`, so that each chunk holds whole cells."
        )


def warn_of_small_batches(adata: AnnData, batch_key: str) -> None:
    """Warn of batches whose cells are too few to learn from."""
    sizes = adata.obs[batch_key].value_counts()
    small = sizes.index[(sizes > 0) & (sizes < FEW_OF_BATCH)].astype(str)
    if len(small):
        warnings.warn(
            f"Of the batches in `.obs[{batch_key!r}]` {listing(natsorted(small))} have fewer than "
            f"{FEW_OF_BATCH} cells, from which nothing can be learned of a batch.",
            UserWarning,
            stacklevel=2,
        )


def arcsinh_record(adata: AnnData, place: str) -> dict[str, float] | None:
    """Cofactor of each channel whose arcsinh is in a place, ``"X"`` or a layer; None without one.

    Raises ValueError for a record that joining cells of different transforms has left behind.
    """
    record = adata.uns.get(Key.uns.ARCSINH)
    record = record.get(place) if isinstance(record, Mapping) else None
    if record is None:
        return None
    if not isinstance(record, Mapping) or not {"channels", "cofactor"} <= set(record):
        raise ValueError(
            f"The record of the arcsinh in .uns[{Key.uns.ARCSINH!r}][{place!r}] is not whole: "
            "these cells were joined from cells with different transforms. Transform them alike "
            "before joining."
        )
    channels = (str(channel) for channel in np.ravel(record["channels"]))
    try:
        cofactors = np.ravel(record["cofactor"]).astype(float).tolist()
        return dict(zip(channels, cofactors, strict=True))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The record of the arcsinh in .uns[{Key.uns.ARCSINH!r}][{place!r}] is damaged: "
            f"{error}."
        ) from error


def cells_beyond(x: Any) -> np.ndarray:
    """Return how many cells of each marker are beyond what transformed values reach."""
    return sum(np.asarray(side.sum(axis=0)).ravel() for side in (x > LARGEST, x < -LARGEST))


class Scale:
    """What values tell of their scale, looked at block by block.

    Parameters
    ----------
    x
        Cells x markers, dense or sparse: the first block, or all.
    """

    def __init__(self, x: Any):
        self._n = 0
        self._beyond = np.zeros(x.shape[1], dtype=np.int64)
        self._low, self._high = np.full((2, x.shape[1]), [[np.inf], [-np.inf]])
        self._whole = True
        self.add(x)

    def add(self, x: Any) -> None:
        """Look at more cells."""
        if 0 in x.shape:
            return
        self._n += x.shape[0]
        self._beyond += cells_beyond(x)
        ends = (x.min(axis=0), x.max(axis=0))
        low, high = (np.ravel(e.toarray() if sparse.issparse(e) else e) for e in ends)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._whole = self._whole and _are_whole(x)

    @property
    def largest(self) -> np.ndarray:
        """Largest absolute value of each marker."""
        return np.maximum(self._high, -self._low)

    def surely_raw(self, n_obs: int) -> bool:
        """Whether more of the cells, of so many, lie beyond a transform than outliers do."""
        return bool((self._beyond > FEW_CELLS * n_obs).any())

    def raw_markers(self) -> np.ndarray:
        """Return the positions of the markers that hold raw intensities or counts.

        None are unless several cells and a share of the markers are: a transform is one of all
        markers, and single values are outliers. Of counts, whole numbers in all cells, all are.
        """
        if not self._n or not len(self._beyond):
            return np.array([], dtype=int)
        beyond = self._beyond > max(1, FEW_CELLS * self._n)
        if beyond.mean() >= FEW_MARKERS:
            return np.flatnonzero(beyond)
        # whole numbers from 0 on, some of them above 1
        are_counts = self._whole and self._low.min() >= 0 and self._high.max() > 1
        return np.arange(len(beyond) if are_counts else 0)

    def looks_transformed(self) -> bool:
        """Whether no marker holds more than a few values beyond a transform, or counts."""
        if not self._n or not len(self._beyond) or self._low.min() == self._high.max():
            return False
        return bool((self._beyond <= FEW_CELLS * self._n).all()) and not self._whole


def _are_whole(x: Any) -> bool:
    values = x.data if sparse.issparse(x) else x
    # the first cells mostly tell
    return all(bool((some == np.floor(some)).all()) for some in (values[:100], values))


def _scale(x: Any) -> Scale:
    return x if isinstance(x, Scale) else Scale(x)


def warn_if_raw(x: Any, names: Sequence[str], *, more: str = "", stacklevel: int = 2) -> None:
    """Warn of values, or of their :class:`Scale`, that were never transformed.

    ``more`` is a sentence for the message.
    """
    scale = _scale(x)
    raw = scale.raw_markers()
    if not len(raw):
        return
    largest = scale.largest[raw]
    order = np.argsort(-largest, kind="stable")
    told = [f"{largest[i]:,.4g} in {str(names[raw[i]])!r}" for i in order[:SHOWN]]
    others = f" and {len(raw) - SHOWN} more" if len(raw) > SHOWN else ""
    warnings.warn(
        ScaleWarning(
            f"Values go up to {', '.join(told)}{others}, as those that were never transformed do.",
            "Transform them first: `scmoe.pp.arcsinh` for cytometry, `sc.pp.normalize_total` and "
            "`sc.pp.log1p` for counts. If distances mean something on this scale, ignore "
            f"`scmoe.pp.ScaleWarning`.{more and f' {more}'}",
        ),
        stacklevel=stacklevel + 1,
    )


def warn_if_transformed(
    adata: AnnData, x: Any, place: str, how: str, *, stacklevel: int = 2
) -> None:
    """Warn of values that seem to be transformed, though there is no record of it.

    By the values of the markers ``x`` or their :class:`Scale`, or by the keywords of the files
    that ``.X`` comes from.
    """
    samples = _transformed_files(adata) if place == "X" else []
    if samples:
        told = f"was transformed in the files of {listing(samples)}, as their keywords say"
    elif _scale(x).looks_transformed():
        told = f"looks transformed already, as no marker goes beyond {LARGEST:g}"
    else:
        return
    warnings.warn(
        ScaleWarning(
            f"{written(place)} {told}; .uns[{Key.uns.ARCSINH!r}] has no record of it, but joining "
            "cells may have dropped that.",
            f"{how} If the values are raw, ignore `scmoe.pp.ScaleWarning`.",
        ),
        stacklevel=stacklevel + 1,
    )


def _transformed_files(adata: AnnData) -> list[str]:
    """Return the samples whose files say that their values were transformed."""
    from scmoe.io._record import says_transformed

    records: Mapping[str, Any] = adata.uns.get(Key.uns.FCS, {})
    there = None
    if isinstance(adata.obs, pd.DataFrame) and Key.obs.SAMPLE in adata.obs:
        there = set(adata.obs[Key.obs.SAMPLE].astype(str))
    return [
        sample
        for sample, record in records.items()
        if (there is None or sample in there) and says_transformed(record)
    ]


def check_matrix(x, names: Sequence[str], where: str, *, if_counts: str = "") -> None:
    """Raise ValueError for values that a model of continuous markers cannot take.

    Parameters
    ----------
    x
        Cells x markers.
    names
        Names of the markers.
    where
        What to call the matrix in the message.
    if_counts
        A sentence for the message: what to do with raw counts, if the model takes them.
    """
    more = f" {if_counts}" if if_counts else ""
    if sparse.issparse(x):
        raise ValueError(
            f"{where} is sparse, but this model takes dense values: use `.toarray()` on a few "
            f'thousand selected genes, or a dense representation with `use_rep="X_pca"`.{more}'
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"{where} holds {x.dtype} values, which look like counts or raw intensities: "
            "transform them first (`scmoe.pp.arcsinh`, or `sc.pp.normalize_total` and "
            f"`sc.pp.log1p`).{more}"
        )
    bad = ~np.isfinite(x).all(axis=0)
    if bad.any():
        raise ValueError(
            f"{where} holds NaN or infinite values in {listing(np.asarray(names)[bad].tolist())}; "
            "remove those cells or markers."
        )
    check_sizes(x, names, where)


def check_sizes(x, names: Sequence[str], where: str) -> None:
    """Raise ValueError for values whose distances float32 can't hold; names marker and cell."""
    if 0 in x.shape or max(abs(x.min()), abs(x.max())) <= FARTHEST:
        return
    x = x.tocsr() if sparse.issparse(x) else x
    cells, markers = (abs(x) > FARTHEST).nonzero()
    value, marker = x[cells[0], markers[0]], str(names[markers[0]])
    more = f" (and such values in {len(set(cells)) - 1} others)" if len(set(cells)) > 1 else ""
    raise ValueError(
        f"{where} holds {value:.3g} in {marker!r} of the cell at position {cells[0]}{more}. "
        f"Beyond {FARTHEST:g} no distances between cells can be computed: remove such cells, or "
        "transform or scale the values first."
    )


def check_counts(x, names: Sequence[str], where: str) -> None:
    """Raise ValueError for values that are no counts; parameters as in :func:`check_matrix`.

    Counts may be dense or sparse, of any numeric type.
    """
    check_sparse(x, where)
    values = x.data if sparse.issparse(x) else np.asarray(x)
    if not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{where} holds {values.dtype} values, which are no counts.")
    fits = np.isfinite(values) & (values >= 0) & (values == np.floor(values))
    if fits.all():
        check_sizes(x, names, where)
        return
    wrong = values[~fits].flat[0]
    if sparse.issparse(x):
        column = x.tocoo().col[~fits]
    else:
        column = np.flatnonzero(~fits.all(axis=0))
    names = np.asarray(names)[np.unique(column)].tolist()
    raise ValueError(
        f"{where} holds values that are no counts, such as {wrong:.6g}, in {listing(names)}: "
        "counts are whole numbers from 0 on. Give the raw counts, which may be in a layer; for "
        "transformed values leave out what calls them counts (the likelihood, or `counts`)."
    )


def check_values(
    x, names: Sequence[str], where: str, *, counts: bool, if_counts: str = ""
) -> None:
    """:func:`check_counts` or :func:`check_matrix`."""
    if counts:
        check_counts(x, names, where)
    else:
        check_matrix(x, names, where, if_counts=if_counts)


def dense(x) -> np.ndarray:
    """A matrix as a dense array of float32."""
    check_sparse(x, "The matrix")
    return np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float32)


def check_training(
    x: np.ndarray,
    names: Sequence[str],
    n_clusters: int,
    *,
    constant: bool = False,
    n_obs: int | None = None,
) -> None:
    """Raise ValueError for cells that nothing can be learned from.

    Parameters
    ----------
    x, names, n_clusters
        Cells x markers, the names of the markers, and how many clusters are asked for.
    constant
        Whether markers may be constant, as the margins of images are.
    n_obs
        Number of cells, where ``x`` is the least and the largest value of each marker.
    """
    n_obs = len(x) if n_obs is None else n_obs
    if n_clusters < 2:
        raise ValueError(f"The number of clusters must be at least 2, got {n_clusters}.")
    if n_obs < 2:
        raise ValueError(f"Clustering needs at least 2 cells, got {n_obs}.")
    if n_obs < n_clusters:
        raise ValueError(
            f"There are fewer cells ({n_obs}) than clusters ({n_clusters}); ask for fewer."
        )
    check_varied(x, names, constant=constant)


def check_varied(x: np.ndarray, names: Sequence[str], *, constant: bool = False) -> None:
    """Raise ValueError for markers that are constant: any, or with ``constant`` only if all are.

    Parameters
    ----------
    x, names
        Cells x markers, and the names of the markers.
    constant
        Whether markers may be constant, as the margins of images are.
    """
    if x.shape[1] == 0:
        raise ValueError("There are no markers to look at.")
    flat = np.ptp(x, axis=0) == 0
    if flat.all() or (flat.any() and not constant):
        raise ValueError(
            f"Constant in all cells: {listing(np.asarray(names)[flat].tolist())}. A marker "
            "that never varies carries no information; remove it."
        )


def check_similarity(similarity: Any) -> None:
    """Raise ValueError for what is no similarity: a name, or a class without brackets."""
    from scmoe import similarity as kinds

    if isinstance(similarity, kinds.Similarity):
        return
    name = str(getattr(similarity, "__name__", similarity)).casefold()
    known = [kind.__name__ for kind in kinds.Similarity.__subclasses__()]
    meant = [kind for kind in known if kind.casefold() == name]
    how = f"such as `scmoe.similarity.{(meant or ['Graph'])[0]}()`"
    if isinstance(similarity, list | tuple):
        how += "; `scmoe.similarity.Blend` mixes two"
    raise ValueError(f"`similarity` must be one of `scmoe.similarity`, {how}; got {similarity!r}.")


def check_unit_interval(x: np.ndarray, names: Sequence[str]) -> None:
    """Raise ValueError for values that no Bernoulli likelihood can give."""
    outside = (x.min(axis=0) < 0) | (x.max(axis=0) > 1)
    if outside.any():
        raise ValueError(
            f"Values from {x.min():.3g} to {x.max():.3g}, outside 0 to 1 in "
            f"{listing(np.asarray(names)[outside].tolist())}: a Bernoulli likelihood cannot give "
            'them. Scale them (`scaling="quantile"` or "minmax", `scmoe.io.from_array` for '
            'images), or use `likelihood="gaussian"`.'
        )


def holds_images(adata: AnnData) -> bool:
    """Whether the variables are the pixels of images whose shape is known."""
    shape = adata.uns.get(Key.uns.IMAGE_SHAPE)
    return shape is not None and math.prod(np.ravel(shape).tolist()) == adata.n_vars


def check_image_shape(adata: AnnData) -> tuple[int, ...]:
    """The shape of an image, (height, width) or (height, width, channels).

    Raises KeyError where there is none, ValueError where it does not fit the variables.
    """
    if Key.uns.IMAGE_SHAPE not in adata.uns:
        raise KeyError(
            f"Convolutions need the shape of an image in `.uns[{Key.uns.IMAGE_SHAPE!r}]`; "
            "`scmoe.io.from_array` writes it."
        )
    shape = tuple(int(s) for s in np.ravel(adata.uns[Key.uns.IMAGE_SHAPE]))
    if len(shape) not in (2, 3) or min(shape) < 1 or math.prod(shape) != adata.n_vars:
        raise ValueError(
            f"`.uns[{Key.uns.IMAGE_SHAPE!r}]` is {shape}, which does not fit the {adata.n_vars} "
            "variables: height x width, or height x width x channels, must give their number."
        )
    return shape
