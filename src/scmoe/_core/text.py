"""Names and words in messages."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar
from unicodedata import category

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


F = TypeVar("F", bound="Callable")

SHOWN = 5
"""Names listed in an error before it says how many more there are."""


def listing(names: Sequence[str]) -> str:
    """Write a readable list of names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(str(n)) for n in names[:SHOWN]) + more


def did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return a sentence, after a blank, with known names like unknown ones; ``""`` for none."""
    folded = {str(name).casefold(): str(name) for name in known}
    close = [get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.7) for name in unknown]
    names = [folded[name] for found in close for name in found]
    return f" Did you mean {listing(names)}?" if names else ""


def visible(text: str) -> str:
    r"""Return text whose control, format and bidirectional characters show as ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in text
    )


def apart(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return names of columns that are unique and are none of ``taken``: ``share (marker)``."""
    found: list[str] = []
    used = set(taken)
    # a name that can stay has it, whatever others come before it
    free = set(names) - used
    for name in names:
        new, number = name, 1
        while new in used or (new != name and new in free):
            number += 1
            new = f"{name} (marker)" if number == 2 else f"{name} (marker {number - 1})"
        used.add(new)
        found.append(new)
    return found


def written(name: str) -> str:
    """Return how a user writes the matrix of a record: ``"X"`` is ``.X``, others are layers."""
    return ".X" if name == "X" else f".layers[{name!r}]"


def h5ad_keys(names: Sequence[str]) -> list[str]:
    """Return names that the keys of an h5ad file can hold, none of them twice."""
    keys: list[str] = []
    for name in names:
        key = name.replace("/", "_")
        key = f"{key}_" if not key.strip(".") or key == "_index" else key
        while key in keys or (key != name and key in names):
            key += "_"
        keys.append(key)
    return keys


def with_docs(parts: Mapping[str, str]) -> Callable[[F], F]:
    """Return a decorator that fills shared parts, such as ``{adata}``, into a docstring.

    ``parts`` are the texts by their placeholder, as they stand at the margin.
    """

    def fill(function: F) -> F:
        doc = inspect.cleandoc(function.__doc__ or "")
        for name, text in parts.items():
            doc = doc.replace(f"{{{name}}}", text)
        function.__doc__ = doc
        return function

    return fill
