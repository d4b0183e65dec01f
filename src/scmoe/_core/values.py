"""Check the values of markers: their scale, their range, missing values, images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.cells import check_sparse
from scmoe._core.keys import Key
from scmoe._core.text import SHOWN, listing, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


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


def fcs_keywords(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the FCS keywords of a record of ``.uns["fcs"]``: lower case, no leading ``$``."""
    table = record["keywords"]
    # AnnData that was read lazily leaves tables on the disk
    table = table if isinstance(table, pd.DataFrame) else table.to_memory()
    return dict(table["value"])


def says_transformed(record: Mapping[str, Any]) -> bool:
    """Whether an FCS file says that its values were transformed before it was written.

    flowCore notes it as ``transformation: custom``, and :func:`scmoe.io.write_fcs` in
    ``SCMOE_EVENTS``.
    """
    keywords = fcs_keywords(record) if "keywords" in record else {}
    events = keywords.get("scmoe_events", "").split()[1:]
    return keywords.get("transformation", "").strip().lower() == "custom" or "arcsinh" in events


def _transformed_files(adata: AnnData) -> list[str]:
    """Return the samples whose files say that their values were transformed."""
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
    """Convert a matrix to a dense array of float32."""
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
    """Return the shape of an image, (height, width) or (height, width, channels).

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
