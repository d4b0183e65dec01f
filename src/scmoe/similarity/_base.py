"""What a similarity is: a recipe that plain values describe, and the target it becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from scmoe._core.settings import FLAG, NOTHING, TEXT, many, number, shown, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from anndata import AnnData
    from scipy.sparse import csr_matrix

MAX_DENSE = 1024
"""Batches up to this size compare all pairs; larger ones compare listed pairs only."""

KINDS = {
    "str": TEXT,
    "str | None": TEXT | NOTHING,
    "tuple[str, ...] | None": many(TEXT) | NOTHING,
    "bool": FLAG,
    "int": whole(0),
    "int | None": whole(1) | NOTHING,
    "float": number(),
    "tuple[float, ...]": many(number()),
}
"""What parameters of similarities may be, by their annotations; of others the class knows."""

PARTNERS = 16
"""Partners that each cell of a large batch is compared with."""

SMALL_FIRST = 0.5
"""Cells are drawn with a weight of the size of their group to minus this power."""


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

    It answers one question: for these cells, how much should each pair agree? Some know
    more, namely which class each cell belongs to. Where it has no opinion, it says NaN.
    """

    class_share: float = 0.0
    """How much of the similarity loss is about classes.

    0 for pairs only, 1 for classes only (pairs are never asked for then). Between, the loss is
    ``class_share`` times the term of the classes plus ``1 - class_share`` times that of the pairs.
    """
    class_names: Sequence[str] = ()
    """Names of the classes.

    Class ``c`` belongs to expert ``c``; further experts are free for populations that nobody
    listed.
    """
    cells: np.ndarray | None = None
    """Sorted indices of the cells that it can teach, ``(m,)`` int64; None for all.

    The model trains on these only, and predicts all.
    """
    membership: np.ndarray | None = None
    """Share of each group for each cell, ``(n_obs, n_groups)`` float32, rows sum to 1.

    None where it knows no groups. A model may start from them.
    """

    traits: np.ndarray | None = None
    """What :meth:`alike` compares cells by, ``(n_obs, f)``; None where it does not.

    A training with such a target keeps them on its device, and asks for no indices.
    """

    def merged(self, n_groups: int, profile: np.ndarray) -> Target | None:
        """Return the target with the closest groups merged until so many are left.

        None where the target does not know which of its groups are close. ``profile`` are the
        values that it was bound with.
        """
        return None

    @property
    def n_classes(self) -> int:
        """How many classes it knows."""
        return len(self.class_names)

    @abstractmethod
    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Similarity of all pairs, for cell indices ``(B,)``.

        ``(B, B)`` float32 in [0, 1], symmetric; NaN where it has no opinion. The diagonal
        is 1: a cell is like itself.
        """

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Similarity of some pairs, NaN where it has no opinion.

        Parameters
        ----------
        cells
            Cell indices of the batch, ``(B,)``.
        pairs
            Positions in the batch, ``(2, m)``.

        Returns
        -------
        ``(m,)`` float32, what :meth:`dense` says of these pairs.
        """
        return self.dense(cells)[pairs[0], pairs[1]]

    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """What :meth:`at` says of cells with such traits; only of targets that have ``traits``.

        Parameters
        ----------
        left, right
            Traits, ``(..., f)``, on any device; broadcast against each other. A cell may be
            compared with itself: what is said of that does not count.

        Returns
        -------
        ``(...)`` float32.
        """
        raise NotImplementedError

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Similarity of some pairs, chosen so that weights make up for what is left out.

        Pairs without an opinion are not listed. By default the pairs are drawn at random.
        """
        pairs = random_partners(len(cells), rng)
        similarity = self.at(cells, pairs)
        weight = np.full(len(similarity), (len(cells) - 1) / PARTNERS, np.float32)
        return known_pairs(Pairs(pairs, similarity, weight))

    def classes(self, cells: np.ndarray) -> np.ndarray | None:
        """Share of each class, for cell indices ``(B,)``; None where there are no classes.

        ``(B, C)`` float32 in [0, 1]; the row of a cell that it knows nothing about is NaN.
        """
        return None

    def positive(self, cells: np.ndarray) -> np.ndarray | None:
        """What speaks for each class, ``(B, C)`` float32, also where that is not certain."""
        return self.classes(cells)

    def __call__(self, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray | Pairs:
        """All pairs of a small batch, listed pairs of a large one."""
        return self.dense(cells) if len(cells) <= MAX_DENSE else self.listed(cells, rng)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Batches of one epoch as positions in ``cells``; None leaves the drawing to chance.

        By default they are drawn with replacement, by :meth:`draw_weights`.
        """
        weight = self.draw_weights(cells)
        return None if weight is None else weighted_batches(weight, batch_size, rng)

    def draw_weights(self, cells: np.ndarray) -> np.ndarray | None:
        """How often each cell is drawn, ``(n,)`` up to a factor; None for all equally often.

        By default one over the root of the size of the group that the cell belongs to.
        """
        if self.membership is None:
            return None
        group = self.membership[cells].argmax(1)
        return np.bincount(group)[group] ** -SMALL_FIRST


class MembershipTarget(Target):
    """Cells agree as far as their memberships in groups do.

    Parameters
    ----------
    membership
        Share of each group for each cell, ``(n_obs, n_groups)`` float32, rows sum to 1.
    """

    def __init__(self, membership: np.ndarray):
        self.membership = self.traits = membership

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Agreement of all pairs; 1 for a cell with itself."""
        membership = self.membership[cells]
        similarity = membership @ membership.T
        similarity[cells[:, None] == cells[None]] = 1
        return similarity.clip(0, 1)

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Agreement of some pairs."""
        left, right = cells[pairs]
        similarity = np.einsum("ij,ij->i", self.membership[left], self.membership[right])
        return np.where(left == right, np.float32(1), similarity.clip(0, 1))

    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Agreement of memberships."""
        return (left * right).sum(-1).clamp(0, 1)


def sum_groups(membership: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Sum the shares of groups that are merged.

    Parameters
    ----------
    membership
        ``(n_obs, n_groups)`` float32.
    into
        New group of each group, ``(n_groups,)`` integers from 0.

    Returns
    -------
    ``(n_obs, n_new)`` float32.
    """
    return membership @ np.eye(into.max() + 1, dtype=np.float32)[into]


@dataclass(frozen=True, kw_only=True)
class Similarity(ABC):
    """A user's notion of which cells are alike; subclasses say where it comes from.

    Instances hold plain values only, so a saved model can name its similarity.
    """

    registry: ClassVar[dict[str, type[Similarity]]] = {}
    needs_graph: ClassVar[bool] = False
    """Whether it looks at the neighbour graph of scanpy; then it has a ``neighbors_key``.

    A property where that depends on the parameters.
    """

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
        values = {f.name: _to_plain(getattr(self, f.name)) for f in fields(self)}
        return {"name": type(self).__name__, **values}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Similarity:
        """Rebuild a similarity from :meth:`to_dict`.

        Raises ValueError for values that describe none, as those of a file may.
        """
        values = dict(values) if isinstance(values, Mapping) else {}
        name = values.pop("name", None)
        if not isinstance(name, str) or name not in Similarity.registry:
            raise ValueError(
                f"Unknown similarity {shown(name)}; known are {sorted(Similarity.registry)}."
            )
        cls = Similarity.registry[name]
        values = {k: _from_plain(v) for k, v in values.items()}
        for parameter in fields(cls):
            if parameter.name in values and parameter.type in KINDS:
                KINDS[parameter.type].check(parameter.name, values[parameter.name])
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"No {name} has such parameters: {error}") from error


def with_seed(similarity: Similarity, seed: int) -> Similarity:
    """The similarity with another ``random_state``, and so its parts; as it is without one."""
    changed: dict[str, Any] = {}
    for parameter in fields(similarity):
        value = getattr(similarity, parameter.name)
        if isinstance(value, Similarity):
            changed[parameter.name] = with_seed(value, seed)
        elif parameter.name == "random_state":
            changed[parameter.name] = seed
    return replace(similarity, **changed) if changed else similarity


def _to_plain(value: Any) -> Any:
    """A parameter as JSON and h5ad can hold it."""
    if isinstance(value, Similarity):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _from_plain(value: Any) -> Any:
    """The way back; h5ad has made arrays of the lists."""
    if isinstance(value, dict):
        return Similarity.from_dict(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


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


def edges_at(block: csr_matrix, pairs: np.ndarray) -> np.ndarray:
    """What :func:`from_edges` knows of some pairs ``(2, m)``; 1 for a position with itself."""
    similarity = np.asarray(block[pairs[0], pairs[1]], dtype=np.float32).ravel()
    similarity[pairs[0] == pairs[1]] = 1
    return similarity


def known_pairs(pairs: Pairs) -> Pairs:
    """Leave out the pairs without an opinion."""
    known = ~np.isnan(pairs.similarity)
    if known.all():
        return pairs
    return Pairs(pairs.rows[:, known], pairs.similarity[known], pairs.weight[known])


def random_partners(n: int, rng: np.random.Generator) -> np.ndarray:
    """``(2, n * PARTNERS)`` pairs of different positions, every pair equally likely."""
    left = np.repeat(np.arange(n), PARTNERS)
    right = (left + rng.integers(1, n, left.size)) % n
    return np.stack([left, right])


def weighted_batches(
    weight: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Batches of one epoch, drawn with replacement in proportion to a weight ``(n,)``."""
    n = len(weight)
    batch_size = min(batch_size, n)
    yield from rng.choice(n, (-(-n // batch_size), batch_size), p=weight / weight.sum())


def check_similarity(similarity: Any) -> None:
    """Raise ValueError for what is no similarity: a name, or a class without brackets."""
    if isinstance(similarity, Similarity):
        return
    name = str(getattr(similarity, "__name__", similarity)).casefold()
    known = [kind.__name__ for kind in Similarity.__subclasses__()]
    meant = [kind for kind in known if kind.casefold() == name]
    how = f"such as `scmoe.similarity.{(meant or ['Graph'])[0]}()`"
    if isinstance(similarity, list | tuple):
        how += "; `scmoe.similarity.Blend` mixes two"
    raise ValueError(f"`similarity` must be one of `scmoe.similarity`, {how}; got {similarity!r}.")
