"""Options that go by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


def choose(choices: Mapping[str, T], name: str, parameter: str) -> T:
    """The choice called ``name``; ValueError that lists all choices for an unknown one."""
    if name not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{parameter}` is {name!r}; it must be one of {names}.")
    return choices[name]
