"""Prior knowledge as similarity: labels, samples that differ, and priors over classes."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.cells import obs_columns
from scmoe._core.keys import Key
from scmoe._core.settings import NOTHING, TEXT, Kind, setting
from scmoe._core.text import listing
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import Target, half_known_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

UNKNOWN = -1
"""Code of a cell without a group."""

LOOKS_UNKNOWN = ("", "nan", "NaN", "None", "NA", "<NA>")
"""Labels that were missing values before they were converted to strings."""

GROUPS = Kind(
    "a sequence of two or more different values",
    lambda v: isinstance(v, tuple) and len(v) > 1 and all(v.count(value) == 1 for value in v),
)

TOLERANCE = 1e-3
"""The class of a cell is known if its row of a prior sums to 1, up to this deviation."""


@dataclass(frozen=True)
class Labels(Similarity):
    """Two cells are alike if they have the same label, and not alike if the labels differ.

    For data of which a part is labelled: the labels say which populations are to be separated,
    and the rest of the model learns from all cells. There is no opinion on a pair with an
    unlabelled cell; combine the labels with a similarity that knows all cells (:class:`Blend`).
    If fewer than half of the cells are labelled, half of each batch is drawn from these.

    Parameters
    ----------
    key
        Column of ``.obs``; NaN for cells without a label.
    """

    key: str = setting(TEXT)

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GroupTarget:
        """Read the labels.

        Raises
        ------
        KeyError
            No such column.
        ValueError
            No cell has a label, all labels are the same, or a label looks like a missing value
            (``"nan"``).
        """
        codes, names = group_codes(adata, self.key)
        if len(names) < 2:
            found = f"all labels are {str(names[0])!r}" if len(names) else "no cell has a label"
            raise ValueError(
                f"`.obs[{self.key!r}]` separates no cells: {found}. There must be at least two "
                "different labels, and NaN for unlabelled cells."
            )
        return GroupTarget(codes, together=1.0)


@dataclass(frozen=True)
class Differ(Similarity):
    """Two cells of different groups are not alike; there is no opinion on cells of one group.

    Weak supervision for samples that are known to differ, such as healthy and diseased: cells of
    one should not share clusters with cells of the other. Use it in a :class:`Blend` with a
    graph. There, cells of two groups stay in one cluster only if the graph joins them strongly:
    an edge between the groups counts with the weight of the graph alone. The weight of ``Differ``
    in the blend sets how strongly groups are separated. Alone, ``Differ`` calls no two cells
    alike, so all clusterings that separate the groups are equally good.

    Parameters
    ----------
    key
        Column of ``.obs``; NaN for cells without a group.
    groups
        The values that differ from each other, two or more; cells with other values are in
        no group. None for all values of the column.
    """

    key: str = setting(TEXT)
    _: KW_ONLY
    groups: tuple[str, ...] | None = setting(GROUPS | NOTHING, None)

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GroupTarget:
        """Read the groups.

        Raises
        ------
        KeyError
            No such column.
        ValueError
            A group has no cell or looks like a missing value (``"nan"``), or there are fewer
            than two groups.
        """
        codes, names = group_codes(adata, self.key)
        if self.groups is not None:
            found = list(names)
            missing = [group for group in self.groups if group not in found]
            if missing:
                raise ValueError(
                    f"No cell has {listing(missing)} in `.obs[{self.key!r}]`, which holds "
                    f"{listing(found)}."
                )
            chosen = [found.index(group) for group in self.groups]
            codes = np.where(np.isin(codes, chosen), codes, UNKNOWN)
        elif len(names) < 2:
            raise ValueError(
                f"`.obs[{self.key!r}]` must hold at least two groups that differ; it holds "
                f"{listing(list(names)) or 'NaN only'}."
            )
        return GroupTarget(codes, together=np.nan)


def group_codes(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each cell.

    Categories without a cell are ignored.

    Returns
    -------
    ``(n_obs,)`` int32, ``UNKNOWN`` for NaN, and the value of each code.
    """
    if key not in adata.obs:
        raise KeyError(f"Did not find {key!r} in `.obs`, which holds {obs_columns(adata)}.")
    codes, names = pd.factorize(adata.obs[key].to_numpy(dtype=object))
    suspicious = [name for name in names if str(name) in LOOKS_UNKNOWN]
    if suspicious:
        raise ValueError(
            f"`.obs[{key!r}]` holds {listing(suspicious)}, which looks like a missing value and "
            "would make all these cells one group; replace it by NaN."
        )
    return codes.astype(np.int32), names


class GroupTarget(Target):
    """The similarity of cells by their group, which is unknown for some cells.

    Parameters
    ----------
    codes
        Group of each cell, ``(n_obs,)`` int32, ``UNKNOWN`` for no group.
    together
        Similarity of two cells of one group, 1 or NaN. It is 0 for cells of different groups.
    """

    def __init__(self, codes: np.ndarray, together: float):
        self.codes = codes
        self.together = np.float32(together)

    def _compare(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the similarity of groups ``left`` and ``right``, broadcast against each other."""
        similarity = np.where(left == right, self.together, np.float32(0))
        similarity[(left == UNKNOWN) | (right == UNKNOWN)] = np.nan
        return similarity

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the similarity of all pairs; NaN for no opinion, 1 for a cell with itself."""
        group = self.codes[cells]
        similarity = self._compare(group[:, None], group[None])
        similarity[cells[:, None] == cells[None]] = 1
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the similarity of some pairs."""
        left, right = cells[pairs]
        similarity = self._compare(self.codes[left], self.codes[right])
        similarity[left == right] = 1
        return similarity

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Draw batches of which half are known cells, see :func:`half_known_batches`."""
        return half_known_batches(self.codes != UNKNOWN, cells, batch_size, rng)


@dataclass(frozen=True, kw_only=True)
class Prior(Similarity):
    """Cells belong to the classes that a prior assigns to them, for example by marker genes.

    The weak supervision of the paper's mouse organs. :func:`scmoe.pp.marker_prior` writes a
    prior; any other cells x classes matrix in ``.obsm`` can be used as well. The class of a cell
    is known (certain) if its row sums to 1; rows of zeros, or with several positive classes, are
    unknown.

    Parameters
    ----------
    use_rep
        Key of the cells x classes matrix in ``.obsm``, values in [0, 1].
    mode
        ``"classes"``: expert ``c`` learns class ``c``, as in the authors' program.
        ``"pairs"``: the similarity of two known cells is the dot product of their rows, and any
        expert may own them; there is no opinion on other pairs.
    train_on
        ``"certain"``: the model trains on the known cells only, as in the paper, and predicts
        all cells. ``"all"``: it trains on all cells; if fewer than half are known, half of each
        batch is drawn from these.
    """

    use_rep: str = setting(TEXT, Key.obsm.PRIOR)
    mode: Literal["classes", "pairs"] = setting(default="classes")
    train_on: Literal["certain", "all"] = setting(default="certain")

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> PriorTarget:
        """Read the prior; raise KeyError if it is missing, ValueError if it is not a prior."""
        if self.use_rep not in adata.obsm:
            raise KeyError(
                f"Did not find {self.use_rep!r} in `.obsm`, which holds {list(adata.obsm)}; "
                "`scmoe.pp.marker_prior(adata, markers)` makes a prior from markers."
            )
        given = adata.obsm[self.use_rep]
        prior, names = check_prior(given, adata.n_obs, f"`.obsm[{self.use_rep!r}]`")
        only_certain = self.train_on == "certain"
        if self.mode == "classes":
            return ClassTarget(prior, names, only_certain, np.asarray(given, np.float32))
        return PriorTarget(prior, only_certain)


def check_prior(given: Any, n_obs: int, name: str) -> tuple[np.ndarray, list[str]]:
    """Check a prior, and mark the cells whose class is not known.

    Parameters
    ----------
    given
        Cells x classes.
    n_obs
        Number of cells.
    name
        Name of the prior in messages.

    Returns
    -------
    ``(n_obs, C)`` float32, rows of known cells sum to 1, the others are NaN; and the names of
    the classes.

    Raises
    ------
    ValueError
        A sparse matrix, values that are not numbers, the wrong shape, NaN, values outside [0, 1],
        fewer than two classes, two classes of the same name, no known cell, or known cells of
        only one class.
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
        raise ValueError(f"{name} has one column; a prior must have at least two classes.")
    if np.isnan(prior).any():
        raise ValueError(f"{name} holds NaN; use zeros for a cell of unknown class.")
    if prior.min() < 0 or prior.max() > 1:
        raise ValueError(
            f"{name} holds values outside [0, 1] ({prior.min():g} to {prior.max():g}); a prior is "
            "the share of each class."
        )
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"{name} has several classes of the same name: {names}.")
    total = prior.sum(axis=1)
    known = np.abs(total - 1) <= TOLERANCE
    if not known.any():
        raise ValueError(
            f"{name} has no certain cell: no row sums to 1. The class of some cells must be known."
        )
    if np.count_nonzero((prior[known] > 0).any(axis=0)) < 2:
        raise ValueError(
            f"{name} gives all {np.count_nonzero(known)} certain cells the same class; there must "
            "be at least two classes."
        )
    rows = np.full(prior.shape, np.nan, dtype=np.float32)
    rows[known] = prior[known] / total[known, None]
    return rows, names or [str(c) for c in range(prior.shape[1])]


class PriorTarget(Target):
    """The pairs of a prior.

    Parameters
    ----------
    prior
        Share of each class, ``(n_obs, C)`` float32, rows of NaN for unknown cells.
    only_certain
        Whether the model trains on known cells only.
    """

    def __init__(self, prior: np.ndarray, only_certain: bool):
        self.known = ~np.isnan(prior[:, 0])
        self.prior = np.where(self.known[:, None], prior, np.float32(0))
        self.cells = np.flatnonzero(self.known) if only_certain else None

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return dot products of rows; NaN if a cell is unknown, 1 for a cell with itself."""
        rows, unknown = self.prior[cells], ~self.known[cells]
        similarity = np.minimum(rows @ rows.T, 1)
        # a matrix product need not be symmetric to the last digit
        similarity = np.maximum(similarity, similarity.T)
        similarity[unknown] = np.nan
        similarity[:, unknown] = np.nan
        similarity[cells[:, None] == cells[None]] = 1
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the dot products of some pairs."""
        left, right = cells[pairs]
        similarity = np.minimum((self.prior[left] * self.prior[right]).sum(axis=1), 1)
        similarity[~(self.known[left] & self.known[right])] = np.nan
        similarity[left == right] = 1
        return similarity

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Draw batches of which half are known cells, see :func:`half_known_batches`."""
        return half_known_batches(self.known, cells, batch_size, rng)


class ClassTarget(PriorTarget):
    """The classes of a prior.

    Parameters
    ----------
    prior, only_certain
        As in :class:`PriorTarget`.
    class_names
        Names of the columns.
    given
        The prior as the user gave it, ``(n_obs, C)``, with the rows of unknown cells.
    """

    class_share = 1.0

    def __init__(
        self, prior: np.ndarray, class_names: list[str], only_certain: bool, given: np.ndarray
    ):
        super().__init__(prior, only_certain)
        self.class_names = class_names
        self.given = given

    def classes(self, cells: np.ndarray) -> np.ndarray:
        """Return the share of each class; rows of NaN for unknown cells."""
        return np.where(self.known[cells, None], self.prior[cells], np.float32(np.nan))

    def positive(self, cells: np.ndarray) -> np.ndarray:
        """Return the rows of the prior as given, also those with several positive classes."""
        return self.given[cells]
