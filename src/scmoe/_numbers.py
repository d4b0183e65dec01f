"""What is a number, where a user may have given something else."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_whole(value: Any) -> Any:
    """A whole number of numpy as one of Python; whatever else is as it was."""
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
