"""What a similarity is: a recipe that plain values describe, and the target it becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from scipy.sparse import csr_matrix

MAX_DENSE = 1024
"""Batches up to this size compare all pairs; larger ones compare listed pairs only."""

PARTNERS = 16
"""Partners that each cell of a large batch is compared with."""


class Pairs(NamedTuple):
    """The similarity of listed pairs of a batch."""

    rows: np.ndarray
    """Positions in the batch, ``(2, m)`` int64."""
    similarity: np.ndarray
    """Similarity of each pair in [0, 1], ``(m,)`` float32."""
    weight: np.ndarray
    """How many pairs of the batch each listed pair stands for, ``(m,)`` float32."""


class Target(ABC):
    """A similarity bound to the cells of one AnnData.

    It answers one question: for these cells, how much should each pair agree?
    """

    @abstractmethod
    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Similarity of all pairs, ``(B, B)`` float32 in [0, 1], for cell indices ``(B,)``."""

    @abstractmethod
    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Similarity of some pairs, chosen so that weights make up for what is left out."""

    def __call__(self, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray | Pairs:
        """All pairs of a small batch, listed pairs of a large one."""
        return self.dense(cells) if len(cells) <= MAX_DENSE else self.listed(cells, rng)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Batches of one epoch as positions in ``cells``; None leaves the drawing to chance."""
        return None


@dataclass(frozen=True, kw_only=True)
class Similarity(ABC):
    """A user's notion of which cells are alike; subclasses say where it comes from.

    Instances hold plain values only, so a saved model can name its similarity.
    """

    registry: ClassVar[dict[str, type[Similarity]]] = {}
    needs_graph: ClassVar[bool] = False
    """Whether it looks at the neighbour graph of scanpy; then it has a ``neighbors_key``."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Similarity.registry[cls.__name__] = cls

    @abstractmethod
    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> Target:
        """Look the similarity up in ``adata``.

        Parameters
        ----------
        adata
            The cells.
        profile
            What the model is trained on, ``(n_obs, n_features)`` float32.
        progress
            Show a progress bar where it takes long.
        """

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters as plain values; :meth:`from_dict` is the way back."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"name": type(self).__name__, **values}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Similarity:
        """Rebuild a similarity from :meth:`to_dict`."""
        values = dict(values)
        name = values.pop("name", None)
        if name not in Similarity.registry:
            raise ValueError(
                f"Unknown similarity {name!r}; known are {sorted(Similarity.registry)}."
            )
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Similarity.registry[name](**tuples)


def from_edges(block: csr_matrix, rng: np.random.Generator) -> Pairs:
    """List every edge of a batch once, and let random pairs stand for the others.

    Parameters
    ----------
    block
        Similarity among the cells of the batch where it is not 0, ``(B, B)``, empty diagonal.
    rng
        Draws the pairs without an edge.
    """
    edges = block.tocoo()
    others = random_partners(block.shape[0], rng)
    others = others[:, np.asarray(block[others[0], others[1]]).ravel() == 0]
    n_edges, n_others = edges.nnz, others.shape[1]
    left_out = block.shape[0] * (block.shape[0] - 1) - n_edges
    return Pairs(
        np.concatenate([[edges.row, edges.col], others], axis=1).astype(np.int64),
        np.concatenate([edges.data, np.zeros(n_others)]).astype(np.float32),
        np.repeat([1, left_out / max(n_others, 1)], [n_edges, n_others]).astype(np.float32),
    )


def random_partners(n: int, rng: np.random.Generator) -> np.ndarray:
    """``(2, n * PARTNERS)`` pairs of different positions, every pair equally likely."""
    left = np.repeat(np.arange(n), PARTNERS)
    right = (left + rng.integers(1, n, left.size)) % n
    return np.stack([left, right])
