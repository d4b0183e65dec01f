"""What cells must be like, said before anything is computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from unicodedata import category

import numpy as np
from scipy import sparse

from scmoe._keys import Key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData

SHOWN = 5
"""Names listed in an error before it says how many more there are."""


def listing(names: Sequence[str]) -> str:
    """A readable list of names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(str(n)) for n in names[:SHOWN]) + more


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


def check_adata(adata: AnnData) -> None:
    """Raise ValueError for a view, for cells on disk, and for names that are not unique."""
    if adata.isbacked:
        raise ValueError("`adata` is backed by a file; pass `adata.to_memory()`.")
    if adata.is_view:
        raise ValueError(
            "`adata` is a view of another AnnData; pass `adata.copy()` of the subset, so that "
            "the results have a place of their own."
        )
    check_names(adata)


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
            f"Did not find the batches {batch_key!r} in `.obs`, which has {list(adata.obs)}."
        )
    missing = adata.obs[batch_key].isna()
    if missing.any():
        raise ValueError(
            f"`.obs[{batch_key!r}]` is missing for {missing.sum()} of {adata.n_obs} cells, such "
            f"as {listing(list(adata.obs_names[missing][:1]))}: every cell needs a batch."
        )


def layer_values(adata: AnnData, layer: str | None):
    """``.X`` or a layer; KeyError for an unknown layer, ValueError for an empty ``.X``."""
    if layer is None:
        if adata.X is None:
            raise ValueError("`adata.X` is empty; name a `layer`.")
        return adata.X
    if layer not in adata.layers:
        raise KeyError(f"Did not find layer {layer!r}; `.layers` holds {list(adata.layers)}.")
    return adata.layers[layer]


def arcsinh_record(adata: AnnData, place: str) -> dict[str, float] | None:
    """Cofactor of each channel whose arcsinh is in a place, ``"X"`` or a layer; None without one.

    Raises ValueError for a record that joining cells of different transforms has left behind.
    """
    record = adata.uns.get(Key.uns.ARCSINH, {}).get(place)
    if record is None:
        return None
    if not {"channels", "cofactor"} <= set(record):
        raise ValueError(
            f"The record of the arcsinh in .uns[{Key.uns.ARCSINH!r}][{place!r}] is not whole: "
            "these cells were joined from cells with different transforms. Transform them alike "
            "before joining."
        )
    channels = (str(channel) for channel in np.ravel(record["channels"]))
    return dict(zip(channels, np.ravel(record["cofactor"]).astype(float).tolist(), strict=True))


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
    largest = np.abs([x.min(axis=0, initial=0), x.max(axis=0, initial=0)]).max(axis=0)
    large = largest > np.finfo(np.float32).max
    if large.any():
        raise ValueError(
            f"{where} holds values up to {largest.max():.3g}, which float32 can't hold, in "
            f"{listing(np.asarray(names)[large].tolist())}; transform or scale them first."
        )


def check_counts(x, names: Sequence[str], where: str) -> None:
    """Raise ValueError for values that are no counts; parameters as in :func:`check_matrix`.

    Counts may be dense or sparse, of any numeric type.
    """
    values = x.data if sparse.issparse(x) else np.asarray(x)
    if not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{where} holds {values.dtype} values, which are no counts.")
    fits = np.isfinite(values) & (values >= 0) & (values == np.floor(values))
    if fits.all():
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
    return np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float32)


def check_training(
    x: np.ndarray, names: Sequence[str], n_clusters: int, *, constant: bool = False
) -> None:
    """Raise ValueError for cells that nothing can be learned from.

    Parameters
    ----------
    x, names, n_clusters
        Cells x markers, the names of the markers, and how many clusters are asked for.
    constant
        Whether markers may be constant, as the margins of images are.
    """
    if n_clusters < 2:
        raise ValueError(f"The number of clusters must be at least 2, got {n_clusters}.")
    if len(x) < 2:
        raise ValueError(f"Clustering needs at least 2 cells, got {len(x)}.")
    if len(x) < n_clusters:
        raise ValueError(
            f"There are fewer cells ({len(x)}) than clusters ({n_clusters}); ask for fewer."
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
    from scmoe.similarity import Similarity

    if not isinstance(similarity, Similarity):
        raise ValueError(
            "`similarity` must be one of `scmoe.similarity`, such as `scmoe.similarity.Graph()`; "
            f"got {similarity!r}."
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
