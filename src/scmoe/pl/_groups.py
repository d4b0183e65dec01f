"""Which groups of cells a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def choose_groups(there: list[str], wanted: Sequence[str] | str | None, where: str) -> list[str]:
    """Those that are wanted, or all; KeyError for others, ValueError for none at all.

    Parameters
    ----------
    there
        Names of the groups that have cells.
    wanted
        Names that are asked for, or one of them; None for all.
    where
        What to call the place of the groups in a message.
    """
    wanted = [wanted] if isinstance(wanted, str) else wanted
    names = there if wanted is None else [str(name) for name in wanted]
    missing = [name for name in names if name not in there]
    if missing:
        raise KeyError(
            f"There is no group {', '.join(map(repr, missing))} in {where} (there is: "
            f"{', '.join(there)})."
        )
    if not names:
        raise ValueError("groups is empty: name at least one.")
    return names
