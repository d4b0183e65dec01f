"""Similarity = what is believed of each cell beforehand: the share of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.keys import Key
from scmoe.similarity._base import Similarity, Target
from scmoe.similarity._known import draw_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

TOLERANCE = 1e-3
"""A row whose sum is this near to 1 is that of a cell whose class is known."""


@dataclass(frozen=True, kw_only=True)
class Prior(Similarity):
    """Cells belong to the classes that a prior gives them, such as one of their markers.

    The weak supervision of the paper's mouse organs: :func:`scmoe.pp.marker_prior` writes
    such a prior, and any other cells x classes matrix in ``.obsm`` does as well. A cell is
    known (certain) if its row sums to 1; rows of zeros, or of several positive markers,
    are unknown.

    Parameters
    ----------
    use_rep
        Cells x classes in ``.obsm``, values in [0, 1].
    mode
        ``"classes"``: class ``c`` is taught to expert ``c``, as the authors' program does.
        ``"pairs"``: two known cells are as similar as the dot product of their rows, and any
        experts may take them; about other pairs there is no opinion.
    train_on
        ``"certain"``: the model trains on the known cells only, the papers' protocol, and
        predicts all. ``"all"``: it trains on all cells; where fewer than half are known,
        half of each batch is drawn among them.
    """

    use_rep: str = Key.obsm.PRIOR
    mode: Literal["classes", "pairs"] = "classes"
    train_on: Literal["certain", "all"] = "certain"

    def __post_init__(self):
        if self.mode not in ("classes", "pairs"):
            raise ValueError(f'`mode` must be "classes" or "pairs", got {self.mode!r}.')
        if self.train_on not in ("certain", "all"):
            raise ValueError(f'`train_on` must be "certain" or "all", got {self.train_on!r}.')

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> PriorTarget:
        """Look the prior up; raises KeyError where it is missing, else as ``check_prior``."""
        if self.use_rep not in adata.obsm:
            raise KeyError(
                f"Did not find {self.use_rep!r} in `.obsm`, which holds {list(adata.obsm)}; "
                "`scmoe.pp.marker_prior(adata, markers)` makes a prior of markers."
            )
        given = adata.obsm[self.use_rep]
        prior, names = check_prior(given, adata.n_obs, f"`.obsm[{self.use_rep!r}]`")
        only_certain = self.train_on == "certain"
        if self.mode == "classes":
            return ClassTarget(prior, names, only_certain, np.asarray(given, np.float32))
        return PriorTarget(prior, only_certain)


def check_prior(given: Any, n_obs: int, name: str) -> tuple[np.ndarray, list[str]]:
    """Validate a prior and bring it into one form.

    Parameters
    ----------
    given
        Cells x classes.
    n_obs
        How many cells there are.
    name
        What to call the prior in a message.

    Returns
    -------
    ``(n_obs, C)`` float32, rows of known cells sum to 1, the others are NaN; and the names of
    the classes.

    Raises
    ------
    ValueError
        Sparse, not numbers, the wrong shape, NaN, values outside [0, 1], fewer than two classes,
        classes of the same name, no known cell, or known cells of a single class.
    """
    if sparse.issparse(given):
        raise ValueError(f"{name} is sparse; a prior must be dense: use `.toarray()`.")
    is_frame = isinstance(given, pd.DataFrame)
    names = [str(c) for c in given.columns] if is_frame else None
    try:
        prior = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not hold numbers: {error}.") from error
    if prior.ndim != 2 or len(prior) != n_obs:
        raise ValueError(
            f"{name} has shape {prior.shape}; a prior is cells x classes, ({n_obs}, classes)."
        )
    if prior.shape[1] < 2:
        raise ValueError(f"{name} has one column; a prior must tell two classes apart at least.")
    if np.isnan(prior).any():
        raise ValueError(f"{name} holds NaN; a cell that nothing is known about has zeros.")
    if prior.min() < 0 or prior.max() > 1:
        raise ValueError(
            f"{name} holds values outside [0, 1] ({prior.min():g} to {prior.max():g}); a prior is "
            "the share of each class."
        )
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"{name} has classes of the same name: {names}.")
    total = prior.sum(axis=1)
    known = np.abs(total - 1) <= TOLERANCE
    if not known.any():
        raise ValueError(
            f"{name} has no certain cell: no row sums to 1. The class of some cells must be known."
        )
    if np.count_nonzero((prior[known] > 0).any(axis=0)) < 2:
        raise ValueError(
            f"{name} gives all {np.count_nonzero(known)} certain cells the same class; there is "
            "nothing to tell apart."
        )
    rows = np.full(prior.shape, np.nan, dtype=np.float32)
    rows[known] = prior[known] / total[known, None]
    return rows, names or [str(c) for c in range(prior.shape[1])]


class PriorTarget(Target):
    """Pairs of a prior.

    Parameters
    ----------
    prior
        ``(n_obs, C)`` float32, the share of each class, rows of NaN for unknown cells.
    only_certain
        Whether known cells only are trained on.
    """

    def __init__(self, prior: np.ndarray, only_certain: bool):
        self.known = ~np.isnan(prior[:, 0])
        self.prior = np.where(self.known[:, None], prior, np.float32(0))
        self.cells = np.flatnonzero(self.known) if only_certain else None

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Dot products of the rows; NaN where one is unknown, 1 for a cell with itself."""
        rows, unknown = self.prior[cells], ~self.known[cells]
        similarity = np.minimum(rows @ rows.T, 1)
        # a matrix product need not be symmetric to the last digit
        similarity = np.maximum(similarity, similarity.T)
        similarity[unknown] = np.nan
        similarity[:, unknown] = np.nan
        similarity[cells[:, None] == cells[None]] = 1
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Dot products of some pairs."""
        left, right = cells[pairs]
        similarity = np.minimum((self.prior[left] * self.prior[right]).sum(axis=1), 1)
        similarity[~(self.known[left] & self.known[right])] = np.nan
        similarity[left == right] = 1
        return similarity

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """At random, or half of them known: see :func:`draw_known`."""
        return draw_known(self.known, cells, batch_size, rng)


class ClassTarget(PriorTarget):
    """Classes of a prior.

    Parameters
    ----------
    prior, only_certain
        As in :class:`PriorTarget`.
    class_names
        Names of the columns.
    given
        The prior as it is, ``(n_obs, C)``, with the rows of cells that are not known.
    """

    class_share = 1.0

    def __init__(
        self, prior: np.ndarray, class_names: list[str], only_certain: bool, given: np.ndarray
    ):
        super().__init__(prior, only_certain)
        self.class_names = class_names
        self.given = given

    def classes(self, cells: np.ndarray) -> np.ndarray:
        """Share of each class; rows of NaN for unknown cells."""
        return np.where(self.known[cells, None], self.prior[cells], np.float32(np.nan))

    def positive(self, cells: np.ndarray) -> np.ndarray:
        """The rows of the prior, several classes for a cell included."""
        return self.given[cells]
