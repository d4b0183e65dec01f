"""Similarity = what a column of ``.obs`` says: labels of some cells, or samples that differ."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.cells import obs_columns
from scmoe._core.text import listing
from scmoe.similarity._base import Similarity, Target
from scmoe.similarity._known import draw_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

UNKNOWN = -1
"""Code of a cell without a group."""

LOOKS_UNKNOWN = ("", "nan", "NaN", "None", "NA", "<NA>")
"""Labels that were NaN before somebody made strings of them."""


@dataclass(frozen=True)
class Labels(Similarity):
    """Cells with the same label are alike, cells with different labels are not.

    For data of which somebody has labelled a part: the labels say which populations are to
    be told apart, and the rest of the model learns from all cells. About a pair with an
    unlabelled cell it has no opinion; blend it with a similarity that has one
    (:class:`Blend`). Where fewer than half of the cells are labelled, half of each batch is
    drawn among them.

    Parameters
    ----------
    key
        Column of ``.obs``; NaN is unknown.
    """

    key: str

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GroupTarget:
        """Look the labels up.

        Raises
        ------
        KeyError
            No such column.
        ValueError
            No cell has a label, all have the same, or a label is ``"nan"`` or the like.
        """
        codes, names = group_codes(adata, self.key)
        if len(names) < 2:
            found = f"all labels are {str(names[0])!r}" if len(names) else "no cell has a label"
            raise ValueError(
                f"`.obs[{self.key!r}]` tells no cells apart: {found}. Labels must be of at least "
                "two kinds, NaN where unknown."
            )
        return GroupTarget(codes, together=1.0)


@dataclass(frozen=True)
class Differ(Similarity):
    """Cells of different groups are not alike; about cells of one group it says nothing.

    Weak supervision for samples that are known to differ, such as healthy and diseased: what
    is in the one should not share clusters with what is in the other. It is meant for a
    :class:`Blend` with a graph: there, cells of two groups stay in one cluster only where
    the graph insists, since its edges across groups count with its own weight only and the
    others not at all. The weight of ``Differ`` in the blend says how hard that is. Alone it
    calls no two cells alike, and any clusters that separate the groups are as good as others.

    Parameters
    ----------
    key
        Column of ``.obs``; NaN is no group.
    groups
        The values that differ from each other, two or more; cells with other values are in
        no group. None for all values of the column.
    """

    key: str
    _: KW_ONLY
    groups: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.groups is None:
            return
        if isinstance(self.groups, str):
            raise ValueError(f"`groups` must be a sequence of values, got {self.groups!r}.")
        groups = tuple(self.groups)
        if len(groups) < 2 or len(set(groups)) < len(groups):
            raise ValueError(f"`groups` must be two or more different values, got {groups}.")
        object.__setattr__(self, "groups", groups)

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> GroupTarget:
        """Look the groups up.

        Raises
        ------
        KeyError
            No such column.
        ValueError
            A group has no cell, is ``"nan"`` or the like, or there are fewer than two groups.
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
    """The group of each cell.

    Only values that some cell has are looked at: the categories of a categorical are not.

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
            "would make a group of all these cells; replace it by NaN."
        )
    return codes.astype(np.int32), names


class GroupTarget(Target):
    """Cells that are in one group, in different ones, or in none that is known.

    Parameters
    ----------
    codes
        Group of each cell, ``(n_obs,)`` int32, ``UNKNOWN`` for none.
    together
        Similarity of two cells of one group, 1 or NaN; that of cells of different groups is 0.
    """

    def __init__(self, codes: np.ndarray, together: float):
        self.codes = codes
        self.together = np.float32(together)

    def _compare(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Similarity of groups ``left`` and ``right``, broadcast against each other."""
        similarity = np.where(left == right, self.together, np.float32(0))
        similarity[(left == UNKNOWN) | (right == UNKNOWN)] = np.nan
        return similarity

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """All pairs of groups; NaN where there is no opinion, 1 for a cell with itself."""
        group = self.codes[cells]
        similarity = self._compare(group[:, None], group[None])
        similarity[cells[:, None] == cells[None]] = 1
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Some pairs of groups."""
        left, right = cells[pairs]
        similarity = self._compare(self.codes[left], self.codes[right])
        similarity[left == right] = 1
        return similarity

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """At random, or half of them known: see :func:`draw_known`."""
        return draw_known(self.codes != UNKNOWN, cells, batch_size, rng)
