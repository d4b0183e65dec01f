"""Settings: what each may be, checked where a user or a file may have given something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_whole(value: Any) -> Any:
    """Convert a whole number of numpy to one of Python; return any other value unchanged."""
    return int(value) if is_whole(value) else value


def is_number(value: Any) -> bool:
    """Whether it is a real number, of Python or numpy, or infinite, or NaN."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int, *, or_else: str = "") -> None:
    """Raise ValueError for what is no whole number, or too small a one.

    ``or_else``: what else the caller takes, for the message.
    """
    if not is_whole(value) or value < least:
        others = f", or {or_else}" if or_else else ""
        raise ValueError(
            f"`{name}` must be a whole number from {least} on{others}, got {value!r}."
        )


@dataclass(frozen=True)
class Kind:
    """Values that a setting may have."""

    words: str
    """What they are, for messages."""
    fits: Callable[[Any], bool]

    def __or__(self, other: Kind) -> Kind:
        return Kind(
            f"{self.words}, or {other.words}",
            lambda value: self.fits(value) or other.fits(value),
        )

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError for a value of another kind."""
        if not self.fits(value):
            raise ValueError(f"`{name}` must be {self.words}, got {shown(value)}.")


def shown(value: Any) -> str:
    """Write a value for a message, at most a line of it."""
    text = repr(value) if not is_whole(value) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def whole(least: int) -> Kind:
    """Accept whole numbers of at least ``least``."""
    return Kind(f"a whole number of at least {least}", lambda v: is_whole(v) and v >= least)


def number(least: float = 0) -> Kind:
    """Accept finite numbers of at least ``least``."""
    return Kind(
        f"a number of at least {least:g}", lambda v: is_number(v) and least <= v < math.inf
    )


def one_of(*choices: str) -> Kind:
    """Accept some words."""
    return Kind(f"one of {choices}", lambda v: isinstance(v, str) and v in choices)


def many(kind: Kind) -> Kind:
    """Accept lists, tuples and arrays of values of a kind."""
    return Kind(
        f"a list, each entry {kind.words}",
        lambda v: (
            isinstance(v, list | tuple | np.ndarray)
            and getattr(v, "ndim", 1) == 1
            and all(map(kind.fits, v))
        ),
    )


def named(kinds: Mapping[str, Kind]) -> Kind:
    """Accept mappings of some names to values of their kinds."""
    return Kind(
        f"a mapping of {', '.join(kinds)}",
        lambda v: (
            isinstance(v, Mapping)
            and all(isinstance(k, str) and k in kinds and kinds[k].fits(v[k]) for k in v)
        ),
    )


SHARE = Kind("a number from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1)
POSITIVE = Kind("a number above 0", lambda v: is_number(v) and 0 < v < math.inf)
TEXT = Kind("a string", lambda v: isinstance(v, str))
FLAG = Kind("True or False", lambda v: isinstance(v, bool | np.bool_))
NOTHING = Kind("None", lambda v: v is None)


def setting(kind: Kind | None = None, default: Any = MISSING, doc: str = "", **notes: Any) -> Any:
    """Declare a field of a dataclass: the values that it accepts, its default, its documentation.

    Parameters
    ----------
    kind
        The values that it accepts. None for those of its annotation: words of a ``Literal``,
        True or False of ``bool``.
    default
        Its default; without one the field must be given.
    doc
        Its documentation, as it stands below its name in a docstring.
    **notes
        Further metadata of the field.
    """
    return field(default=default, metadata={"kind": kind, "doc": doc, **notes})


@cache
def kinds_of(settings_class: type) -> dict[str, Kind]:
    """Return the values that each field declared by :func:`setting` accepts, by its name."""
    kinds = {f.name: f.metadata["kind"] for f in fields(settings_class) if "kind" in f.metadata}
    # a class of a user may have annotations that nothing but a type checker can look up
    hints = get_type_hints(settings_class) if None in kinds.values() else {}
    return {name: kind or _kind_of(hints[name]) for name, kind in kinds.items()}


def _kind_of(annotation: Any) -> Kind:
    """Return the values that an annotation of words, flags and None allows."""
    if annotation is bool:
        return FLAG
    if annotation is NoneType:
        return NOTHING
    if get_origin(annotation) is Literal:
        return one_of(*get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        first, *others = map(_kind_of, get_args(annotation))
        for other in others:
            first |= other
        return first
    raise TypeError(f"{annotation} says too little: declare the kind of the setting.")


def check_fields(settings: Any) -> None:
    """Raise ValueError unless each field of a dataclass has a value that it accepts."""
    for name, kind in kinds_of(type(settings)).items():
        kind.check(name, getattr(settings, name))
