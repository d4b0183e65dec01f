"""Similarity = a function of the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe.similarity._base import Similarity, Target

if TYPE_CHECKING:
    from anndata import AnnData

ROUNDING = 1e-4
"""Differences up to this are rounding, not mistakes."""


@dataclass(frozen=True)
class Custom(Similarity):
    """Cells are as similar as a function says.

    Parameters
    ----------
    function
        Called with the cell indices of a batch, ``(B,)`` int64, which may hold a cell twice. It
        returns their similarities, ``(B, B)`` in [0, 1] and symmetric, NaN where it has no
        opinion; the diagonal is not looked at. It is called for every batch, so it should
        be fast.

        A saved model keeps its name only (``"module:function"``, which may be given as well).
        To train a loaded model further, import the module first: a file does not choose what
        is imported. That needs a function at the top level of a module.

    Examples
    --------
    In a module ``mine.py``::

        positions = np.load("positions.npy")


        def near(cells):
            return cdist(positions[cells], positions[cells]) < 50

    and then ``scmoe.similarity.Custom(mine.near)``.
    """

    function: Callable[[np.ndarray], np.ndarray] | str

    def __post_init__(self):
        if isinstance(self.function, str):
            object.__setattr__(self, "function", found(self.function) or self.function)
        elif not callable(self.function):
            raise ValueError(
                "`function` must be a function of cell indices, or its name "
                f'"module:function"; got {type(self.function).__name__}.'
            )

    def to_dict(self) -> dict[str, Any]:
        """The name of the function; :meth:`from_dict` looks it up in imported modules."""
        return {"name": type(self).__name__, "function": name_of(self.function)}

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> CustomTarget:
        """Use the function; ValueError where only its name is left and leads nowhere."""
        if isinstance(self.function, str):
            raise ValueError(
                f"The function {self.function!r} of a Custom similarity can't be found. A model "
                "keeps the name of a function only: import its module before the model is "
                "loaded, and define it at the top level of the module, not as a lambda or "
                "within another function."
            )
        return CustomTarget(self.function)


def name_of(function: Callable | str) -> str:
    """``"module:qualified name"``; brackets mark what can't be found under its name."""
    if isinstance(function, str):
        return function
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", type(function).__qualname__)
    full = f"{module}:{name}"
    # __main__ is another program the next time
    safe = module != "__main__" and found(full) is function
    return full if "<" in name or safe else f"{module}:<{name}>"


def found(name: str) -> Callable | None:
    """The function of a name, None where there is none in the modules imported so far.

    Nothing is imported: names come out of files too, and a module may do anything when it is.
    """
    module, _, path = name.partition(":")
    thing = sys.modules.get(module)
    if thing is None or not path or "<" in path:
        return None
    for part in path.split("."):
        thing = vars(thing).get(part) if hasattr(thing, "__dict__") else None
        thing = getattr(thing, "__func__", thing)
    # not `os:system`, not what a module has from elsewhere
    own = isinstance(thing, FunctionType) and thing.__globals__.get("__name__") == module
    return thing if own else None


class CustomTarget(Target):
    """The answers of a function, each of them checked."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]):
        self.function = function
        self.name = name_of(function)

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """What the function says, 1 on the diagonal.

        Raises
        ------
        ValueError
            The answer is no array of numbers of the right shape, leaves [0, 1], or is not
            symmetric.
        """
        cells = cells.astype(np.int64)
        answer = np.asarray(self.function(cells))
        name, n = self.name, len(cells)
        if answer.dtype.kind not in "bfiu":
            raise ValueError(
                f"{name} returned {answer.dtype} values; a similarity is a dense array of numbers."
            )
        if answer.shape != (n, n):
            raise ValueError(
                f"{name} returned shape {answer.shape} for {n} cells; it must be {(n, n)}."
            )
        answer = np.array(answer, dtype=np.float32)
        np.fill_diagonal(answer, 1.0)
        unknown = np.isnan(answer)
        known = np.where(unknown, np.float32(0), answer)
        if known.min() < -ROUNDING or known.max() > 1 + ROUNDING:
            raise ValueError(
                f"{name} returned values from {known.min():g} to {known.max():g}; a similarity is "
                "between 0 and 1: scale it, or use NaN where there is no opinion."
            )
        if (unknown != unknown.T).any() or np.abs(known - known.T).max() > ROUNDING:
            raise ValueError(
                f"{name} returned an array that is not symmetric; return "
                "`np.maximum(s, s.T)` for alike in either direction, `(s + s.T) / 2` for the mean."
            )
        answer = np.clip(answer, 0, 1)
        return (answer + answer.T) / 2
