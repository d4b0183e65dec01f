"""Two similarities at once."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np

from scmoe.similarity._base import Pairs, Similarity, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


@dataclass(frozen=True)
class Blend(Similarity):
    """The weighted mean of two similarities; where one has no opinion, the other one's.

    So labels of a few cells, or samples that differ, can be joined with a graph that knows all
    cells. A missing edge is an opinion too, namely that two cells are not alike: with labels,
    :class:`CoAssociation` contradicts less than :class:`Graph`. A :class:`Prior` of classes
    keeps its experts: its share of the loss is its weight, the pairs come from the other part,
    and all cells train. Blends can be blended.

    Parameters
    ----------
    first, second
        The parts; at most one of them may teach classes. Batches are drawn by the first of
        them that draws its own.
    weight
        Weight of ``first``, between 0 and 1; ``second`` has the rest.
    """

    first: Similarity
    second: Similarity
    _: KW_ONLY
    weight: float = 0.5

    def __post_init__(self):
        for name in ("first", "second"):
            if not isinstance(getattr(self, name), Similarity):
                raise ValueError(
                    f"`{name}` must be a similarity, got {type(getattr(self, name)).__name__}."
                )
        if not 0 < self.weight < 1:
            raise ValueError(f"`weight` must be between 0 and 1, got {self.weight}.")
        keys = [part.neighbors_key for part in (self.first, self.second) if part.needs_graph]
        if len(set(keys)) > 1:
            raise ValueError(
                f"The parts look at different neighbour graphs, `neighbors_key` {keys[0]!r} and "
                f"{keys[1]!r}. Name the same in both, or give one of them its graph as "
                "`Graph(obsp=...)`."
            )

    @property
    def needs_graph(self) -> bool:
        """Whether a part looks at the neighbour graph of scanpy."""
        return self.first.needs_graph or self.second.needs_graph

    @property
    def neighbors_key(self) -> str | None:
        """That of the part that looks at the graph."""
        if self.first.needs_graph:
            return self.first.neighbors_key
        return self.second.neighbors_key if self.second.needs_graph else None

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> BlendTarget:
        """Bind both parts; raises as they do, and ValueError where both teach classes."""
        return BlendTarget(
            self.first.bind(adata, profile, progress=progress),
            self.second.bind(adata, profile, progress=progress),
            self.weight,
        )


class BlendTarget(Target):
    """Two targets and the weight of the first.

    The loss is linear in its parts, so shares multiply: of a part with weight ``w`` and a
    class share ``s``, ``w s`` is about classes and ``w (1 - s)`` about pairs.
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
        """Weight of the first part among the pairs."""
        # unknown cells of a class prior are taught by the other part
        limits = [None if part.class_share == 1 else part.cells for part in self.parts]
        self.cells = None if any(c is None for c in limits) else np.union1d(*limits)

    def _mean(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Weighted mean, or the one that has an opinion."""
        mean = second + np.float32(self.weight) * (first - second)
        return np.where(np.isnan(first), second, np.where(np.isnan(second), first, mean))

    def _only(self) -> Target | None:
        """The part that all pairs come from; None where both count."""
        return {1.0: self.parts[0], 0.0: self.parts[1]}.get(self.weight)

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Mean of both parts for all pairs."""
        if only := self._only():
            return only.dense(cells)
        return self._mean(*(part.dense(cells) for part in self.parts))

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Mean of both parts for some pairs."""
        if only := self._only():
            return only.at(cells, pairs)
        return self._mean(*(part.at(cells, pairs) for part in self.parts))

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """The pairs that either part lists, with the mean of both.

        Each part lists what matters to it, such as edges. A pair that both have an opinion on
        is represented in both lists, so that it counts half in each.
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
        """Classes of the part that teaches them."""
        return None if self.teacher is None else self.teacher.classes(cells)

    def positive(self, cells: np.ndarray) -> np.ndarray | None:
        """What speaks for the classes, in the part that teaches them."""
        return None if self.teacher is None else self.teacher.positive(cells)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Those of the first part that draws its own."""
        for part in self.parts:
            drawn = part.batches(cells, batch_size, rng)
            if drawn is not None:
                return drawn
        return None
