"""Conversion of cells, arrays or AnnData, to arrays that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from natsort import natsorted
from scipy import sparse

from scmoe._core.cells import check_names, check_sparse, layer_values, obs_columns
from scmoe._core.text import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def as_cells(x: Any, name: str, markers: Sequence[str] | None = None) -> NDArray[np.floating]:
    """Convert cells x markers to a dense array of floats, and check the values.

    Parameters
    ----------
    x
        A matrix of numbers, dense or sparse.
    name
        Name of the argument for messages.
    markers
        Names of the markers for messages, by default their numbers.

    Raises
    ------
    ValueError
        If the values are not a matrix of numbers, are empty, or hold NaN or infinite values.
    """
    check_sparse(x, name)
    x = x.toarray() if sparse.issparse(x) else np.asarray(x)
    if x.ndim != 2:
        raise ValueError(
            f"{name} must be cells x markers, got {x.ndim} dimension(s) of shape {x.shape}."
        )
    if not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}.")
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: it has {x.shape[0]} cells and {x.shape[1]} markers.")
    if not np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float64)
    bad = ~np.isfinite(x).all(axis=0)
    if bad.any():
        names = range(x.shape[1]) if markers is None else markers
        which = listing([n for n, b in zip(names, bad, strict=True) if b])
        raise ValueError(
            f"{name} holds NaN or infinite values in marker {which}; remove those cells or "
            "markers."
        )
    return x


def draw(x: NDArray, n: int, rng: np.random.Generator) -> NDArray:
    """Draw at most ``n`` rows without replacement."""
    return x if len(x) <= n else x[np.sort(rng.choice(len(x), n, replace=False))]


def one_or_pair(value: Any, name: str) -> tuple[Any, Any]:
    """Return a pair of settings (real, generated), from one setting for both or from a pair."""
    if value is None or isinstance(value, str):
        return value, value
    if isinstance(value, tuple | list) and len(value) == 2:
        return tuple(value)
    raise ValueError(
        f"{name} must be a name, or a pair of names (real, generated), got {value!r}."
    )


@dataclass(frozen=True)
class RealAndGenerated:
    """Real and generated cells with the same markers in the same order."""

    markers: list[str]
    """Names of the markers; of arrays, their numbers."""
    real: NDArray[np.floating]
    """Shape ``(n_real, n_markers)``."""
    generated: NDArray[np.floating]
    """Shape ``(n_generated, n_markers)``."""
    real_groups: NDArray[np.object_] | None
    """Group of each real cell as text, None for none; None if there are no groups at all."""
    generated_groups: NDArray[np.object_] | None
    """Group of each generated cell."""

    @property
    def groups(self) -> list[str]:
        """All groups, of real and of generated cells, in natural order."""
        if self.real_groups is None or self.generated_groups is None:
            return []
        both = {*self.real_groups, *self.generated_groups}
        return natsorted(both - {None})

    @classmethod
    def of(
        cls,
        real: Any,
        generated: Any,
        groupby: str | tuple[str, str] | None = None,
        layer: str | tuple[str | None, str | None] | None = None,
        markers: Sequence[str] | None = None,
    ) -> RealAndGenerated:
        """Match markers and groups; see :func:`scmoe.metrics.generation_report` for arguments."""
        if isinstance(real, AnnData) != isinstance(generated, AnnData):
            raise ValueError(
                "real and generated must both be AnnData, or both arrays, got "
                f"{type(real).__name__} and {type(generated).__name__}."
            )
        if not isinstance(real, AnnData):
            given = {"groupby": groupby, "layer": layer, "markers": markers}
            named = [name for name, value in given.items() if value is not None]
            if named:
                raise ValueError(
                    f"{', '.join(named)} can be used with AnnData only: arrays carry no names."
                )
            x, y = as_cells(real, "real"), as_cells(generated, "generated")
            check_same_markers(x, y, ("real", "generated"))
            return cls([str(i) for i in range(x.shape[1])], x, y, None, None)
        names = shared_markers(real, generated, markers)
        layers = one_or_pair(layer, "layer")
        columns = one_or_pair(groupby, "groupby")
        if (columns[0] is None) != (columns[1] is None):
            raise ValueError(f"groupby must name a column of both sides, got {groupby!r}.")
        return cls(
            names,
            values(real, names, layers[0], "real"),
            values(generated, names, layers[1], "generated"),
            _groups(real, columns[0], "real"),
            _groups(generated, columns[1], "generated"),
        )


def check_same_markers(x: NDArray, y: NDArray, names: tuple[str, str]) -> None:
    """Raise ValueError unless two matrices have equally many columns."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} has {x.shape[1]} markers and {names[1]} has {y.shape[1]}: both need the "
            "same markers in the same order."
        )


def shared_markers(real: AnnData, generated: AnnData, wanted: Sequence[str] | None) -> list[str]:
    """Return the markers to compare, by default all of the generated cells."""
    check_names(real)
    check_names(generated)
    if wanted is None:
        names = list(generated.var_names)
        if names and not real.var_names.isin(names).any():
            raise ValueError(
                f"real and generated share no marker: real has {listing(list(real.var_names))}, "
                f"generated has {listing(names)}."
            )
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise ValueError("There is no marker to compare.")
    for adata, what in ((real, "real"), (generated, "generated")):
        missing = [name for name in names if name not in adata.var_names]
        if missing:
            raise KeyError(
                f"{what} lacks the marker {listing(missing)}; choose markers that both have "
                "with markers=."
            )
    return names


def values(
    adata: AnnData, markers: Sequence[str], layer: str | None, name: str
) -> NDArray[np.floating]:
    """Return the values of markers, checked by :func:`as_cells`."""
    x = layer_values(adata, layer)
    return as_cells(x[:, adata.var_names.get_indexer_for(markers)], name, markers)


def _groups(adata: AnnData, column: str | None, name: str) -> NDArray[np.object_] | None:
    if column is None:
        return None
    if column not in adata.obs:
        there = listing(obs_columns(adata)) or "none"
        raise KeyError(
            f"{name} has no column {column!r} in .obs (there is: {there}). Name the groups of "
            "both with groupby=(real, generated) if they differ."
        )
    labels = adata.obs[column]
    return np.where(labels.isna(), None, labels.astype(str)).astype(object)


def group_codes(labels: Any, n_cells: int, name: str) -> tuple[NDArray[np.intp], list[Any]]:
    """Return the codes of groups in natural order, -1 for a cell without a group.

    Raises
    ------
    ValueError
        If the number of labels differs from the number of cells, or no cell has a label.
    """
    labels = pd.Series(labels).reset_index(drop=True)
    if len(labels) != n_cells:
        raise ValueError(f"{name} has {len(labels)} labels for {n_cells} cells.")
    found = natsorted(labels.dropna().unique(), key=str)
    if not found:
        raise ValueError(f"{name} gives no cell a group.")
    return pd.Categorical(labels, categories=found).codes.astype(np.intp), found
