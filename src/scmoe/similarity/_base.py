"""The base class of similarities: parameters, their checks, and their record."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scmoe._core.settings import check_fields, shown

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.similarity._target import Target

logger = logging.getLogger("scmoe")


@dataclass(frozen=True, kw_only=True)
class Similarity(ABC):
    """Base class of similarities: rules that say which cells should share a cluster.

    A similarity holds its parameters only, as plain values, so that a saved model can name it.
    :meth:`bind` applies it to cells. Lists and arrays become tuples, numpy scalars Python ones.

    """

    # A parameter is one line in the subclass, with its valid values and its default, such as
    # `n_neighbors: int = setting(whole(1), 10)`; `__post_init__` checks all of them.

    registry: ClassVar[dict[str, type[Similarity]]] = {}
    """Subclasses by name."""
    needs_graph: ClassVar[bool] = False
    """Whether the similarity reads the neighbour graph of scanpy.

    If it does, it has a ``neighbors_key``. A property where this depends on the parameters.
    """
    retired: ClassVar[dict[str, str]] = {}
    """Parameters of earlier versions that records may hold, and why each is ignored."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Similarity.registry[cls.__name__] = cls

    def __post_init__(self):
        for parameter in fields(self):
            value = _without_arrays(getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)
        check_fields(self)

    @abstractmethod
    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> Target:
        """Compute the similarity for the cells of ``adata``.

        Parameters
        ----------
        adata
            The cells.
        profile
            Values that the model is trained on, ``(n_obs, n_features)`` float32.
        progress
            Show a progress bar where the computation takes long.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the parameters as plain values, for :meth:`from_dict`."""
        values = {f.name: _to_plain(getattr(self, f.name)) for f in fields(self)}
        return {"name": type(self).__name__, **values}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Similarity:
        """Rebuild a similarity from the values of :meth:`to_dict`.

        Raises
        ------
        ValueError
            An unknown name, an unknown or missing parameter, or an invalid value. A damaged
            file may hold any of these.
        """
        values = dict(values) if isinstance(values, Mapping) else {}
        name = values.pop("name", None)
        if not isinstance(name, str) or name not in Similarity.registry:
            raise ValueError(
                f"Unknown similarity {shown(name)}; known are {sorted(Similarity.registry)}."
            )
        cls = Similarity.registry[name]
        for parameter, reason in cls.retired.items():
            if values.pop(parameter, None) is not None:
                logger.warning("`%s` of %s is ignored: %s", parameter, name, reason)
        values = {
            k: Similarity.from_dict(v) if isinstance(v, Mapping) else v for k, v in values.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"Invalid parameters of {name}: {error}") from error


def _to_plain(value: Any) -> Any:
    """Convert a parameter to a value that JSON and h5ad can hold."""
    if isinstance(value, Similarity):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _without_arrays(value: Any) -> Any:
    """Convert arrays and lists to tuples, and numpy scalars to Python ones."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


def with_seed(similarity: Similarity, seed: int) -> Similarity:
    """Return the similarity with ``random_state`` set to ``seed``, in all of its parts.

    A similarity without a ``random_state`` is returned unchanged.
    """
    changed: dict[str, Any] = {}
    for parameter in fields(similarity):
        value = getattr(similarity, parameter.name)
        if isinstance(value, Similarity):
            changed[parameter.name] = with_seed(value, seed)
        elif parameter.name == "random_state":
            changed[parameter.name] = seed
    return replace(similarity, **changed) if changed else similarity


def check_similarity(similarity: Any) -> None:
    """Raise ValueError unless ``similarity`` is an instance of :class:`Similarity`.

    Users pass a name, a class instead of an instance, or a list of similarities by mistake; the
    message says what to write.
    """
    if isinstance(similarity, Similarity):
        return
    name = str(getattr(similarity, "__name__", similarity)).casefold()
    known = [kind.__name__ for kind in Similarity.__subclasses__()]
    meant = [kind for kind in known if kind.casefold() == name]
    how = f"such as `scmoe.similarity.{(meant or ['Graph'])[0]}()`"
    if isinstance(similarity, list | tuple):
        how += "; `scmoe.similarity.Blend` mixes two"
    raise ValueError(f"`similarity` must be one of `scmoe.similarity`, {how}; got {similarity!r}.")
