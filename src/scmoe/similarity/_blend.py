"""Mix two similarities."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.settings import Kind, is_number, setting
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import Pairs, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


PART = Kind("a similarity", lambda v: isinstance(v, Similarity))
WEIGHT = Kind("a number between 0 and 1", lambda v: is_number(v) and 0 < v < 1)


@dataclass(frozen=True)
class Blend(Similarity):
    """The weighted mean of two similarities.

    Where one part has no opinion on a pair, the other part decides alone. So labels of some
    cells, or samples that differ, can be combined with a similarity that knows all cells. In a
    :class:`Graph`, a missing edge is an opinion too, namely that two cells are not alike: labels
    contradict :class:`CoAssociation` less than :class:`Graph`. A :class:`Prior` of classes keeps
    its experts: its share of the loss is its weight, the pairs come from the other part, and the
    model trains on all cells. A part can be a blend itself.

    Parameters
    ----------
    first, second
        The parts; at most one of them may teach classes. The first part that draws its own
        batches draws those of the blend.
    weight
        Weight of ``first``, between 0 and 1; ``second`` has the rest.
    """

    first: Similarity = setting(PART)
    second: Similarity = setting(PART)
    _: KW_ONLY
    weight: float = setting(WEIGHT, 0.5)

    def __post_init__(self):
        super().__post_init__()
        keys = [part.neighbors_key for part in (self.first, self.second) if part.needs_graph]
        if len(set(keys)) > 1:
            raise ValueError(
                f"The parts use different neighbour graphs, `neighbors_key` {keys[0]!r} and "
                f"{keys[1]!r}. Name the same in both, or give one of them its graph as "
                "`Graph(obsp=...)`."
            )

    @property
    def needs_graph(self) -> bool:
        """Whether a part reads the neighbour graph of scanpy."""
        return self.first.needs_graph or self.second.needs_graph

    @property
    def neighbors_key(self) -> str | None:
        """The ``neighbors_key`` of the part that reads the graph."""
        if self.first.needs_graph:
            return self.first.neighbors_key
        return self.second.neighbors_key if self.second.needs_graph else None

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> BlendTarget:
        """Bind both parts.

        Raises the errors of the parts, and ValueError if both teach classes.
        """
        return BlendTarget(
            self.first.bind(adata, profile, progress=progress),
            self.second.bind(adata, profile, progress=progress),
            self.weight,
        )


class BlendTarget(Target):
    """The weighted mean of two targets.

    The loss is linear in its parts, so shares multiply: a part with weight ``w`` and class share
    ``s`` contributes ``w s`` to the class term and ``w (1 - s)`` to the pair term.
    """

    def __init__(self, first: Target, second: Target, weight: float):
        self.parts = (first, second)
        taught = [part for part in self.parts if part.class_share > 0]
        if len(taught) == 2:
            raise ValueError(
                "Both parts of a Blend teach classes; an expert can belong to one class only. "
                'Use `Prior(mode="pairs")` for one of them.'
            )
        of_classes = [weight * first.class_share, (1 - weight) * second.class_share]
        of_pairs = [weight - of_classes[0], 1 - weight - of_classes[1]]
        self.class_share = sum(of_classes)
        self.teacher = taught[0] if taught else None
        if taught:
            self.class_names = taught[0].class_names
        self.weight = of_pairs[0] / sum(of_pairs)
        """Weight of the first part in the pair term."""
        # the other part teaches the cells that a class prior does not know
        limits = [None if part.class_share == 1 else part.cells for part in self.parts]
        self.cells = None if any(c is None for c in limits) else np.union1d(*limits)

    def _mean(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the weighted mean, or the value of the only part with an opinion."""
        mean = second + np.float32(self.weight) * (first - second)
        return np.where(np.isnan(first), second, np.where(np.isnan(second), first, mean))

    def _only(self) -> Target | None:
        """Return the part that all pairs come from; None if both parts count."""
        return {1.0: self.parts[0], 0.0: self.parts[1]}.get(self.weight)

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the mean of both parts for all pairs."""
        if only := self._only():
            return only.dense(cells)
        return self._mean(*(part.dense(cells) for part in self.parts))

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the mean of both parts for some pairs."""
        if only := self._only():
            return only.at(cells, pairs)
        return self._mean(*(part.at(cells, pairs) for part in self.parts))

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Return the pairs that either part lists, with the mean of both parts.

        Each part lists the pairs that matter to it, such as edges. Pairs on which both parts have
        an opinion are represented in both lists, so they count half in each.
        """
        if only := self._only():
            return only.listed(cells, rng)
        lists = []
        for i, part in enumerate(self.parts):
            rows, own, weight = part.listed(cells, rng)
            other = self.parts[1 - i].at(cells, rows)
            mean = self._mean(own, other) if i == 0 else self._mean(other, own)
            lists.append(Pairs(rows, mean, np.where(np.isnan(other), weight, weight / 2)))
        return Pairs(*(np.concatenate(values, axis=-1) for values in zip(*lists, strict=True)))

    def classes(self, cells: np.ndarray) -> np.ndarray | None:
        """Return the classes of the part that teaches them."""
        return None if self.teacher is None else self.teacher.classes(cells)

    def positive(self, cells: np.ndarray) -> np.ndarray | None:
        """Return the evidence for the classes, from the part that teaches them."""
        return None if self.teacher is None else self.teacher.positive(cells)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Draw the batches of the first part that draws its own."""
        for part in self.parts:
            drawn = part.batches(cells, batch_size, rng)
            if drawn is not None:
                return drawn
        return None
