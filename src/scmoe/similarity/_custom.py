"""A function of the user as similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.settings import Kind, setting
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import Target

if TYPE_CHECKING:
    from anndata import AnnData

ROUNDING = 1e-4
"""Deviations from [0, 1] and from symmetry up to this value are rounding errors."""

FUNCTION = Kind("a function of cell indices", lambda v: isinstance(v, str) or callable(v))


@dataclass(frozen=True)
class Custom(Similarity):
    """The similarity of two cells is the value of a function.

    Parameters
    ----------
    function
        Called with the cell indices of a batch, ``(B,)`` int64, which may hold a cell twice. It
        returns their similarities, ``(B, B)`` in [0, 1] and symmetric, NaN for no opinion; the
        diagonal is ignored. It is called for every batch, so it should be fast.

        A saved model, and the record of a clustering, keep only the name of the function
        (``"module:name"``). The name is never looked up, so that a file cannot choose which code
        is imported or called. To continue the training of a loaded model, pass the function
        again: ``model.similarity = Custom(function)``.

    Examples
    --------
    In a module ``mine.py``::

        positions = np.load("positions.npy")


        def near(cells):
            return cdist(positions[cells], positions[cells]) < 50

    and then ``scmoe.similarity.Custom(mine.near)``.
    """

    function: Callable[[np.ndarray], np.ndarray] | str = setting(FUNCTION)

    def to_dict(self) -> dict[str, Any]:
        """Return the names of the class and of the function; the function itself is not kept."""
        return {"name": type(self).__name__, "function": name_of(self.function)}

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> CustomTarget:
        """Bind the function; raise ValueError if only its name is known."""
        if isinstance(self.function, str):
            raise ValueError(
                f"The function {self.function!r} of a Custom similarity is missing: only its "
                "name was saved, and no name is looked up. Pass the function again: "
                "`model.similarity = scmoe.similarity.Custom(function)`."
            )
        return CustomTarget(self.function)


def name_of(function: Callable | str) -> str:
    """Return ``"module:qualified name"``."""
    if isinstance(function, str):
        return function
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}:{getattr(function, '__qualname__', type(function).__qualname__)}"


class CustomTarget(Target):
    """The values of a function, checked at every call."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]):
        self.function = function
        self.name = name_of(function)

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the values of the function, with 1 on the diagonal.

        Raises
        ------
        ValueError
            The function returned something other than an array of numbers of the right shape,
            values outside [0, 1], or an array that is not symmetric.
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
                "between 0 and 1: scale it, or use NaN for no opinion."
            )
        if (unknown != unknown.T).any() or np.abs(known - known.T).max() > ROUNDING:
            raise ValueError(
                f"{name} returned an array that is not symmetric; return "
                "`np.maximum(s, s.T)` for the larger value, `(s + s.T) / 2` for the mean."
            )
        answer = np.clip(answer, 0, 1)
        return (answer + answer.T) / 2
