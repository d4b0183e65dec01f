"""What is a number, where a user may have given something else."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a real number, of Python or numpy, or infinite, or NaN."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError for what is no whole number, or too small a one."""
    if not is_whole(value) or value < least:
        raise ValueError(f"`{name}` must be a whole number from {least} on, got {value!r}.")
