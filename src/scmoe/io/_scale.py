"""From stored numbers to the linear scale: time step, logarithm, gain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._errors import Fault, Repairs, listed, shown
from ._split import BLANKS, Keywords, to_number

if TYPE_CHECKING:
    from ._layout import Column

_TIME = "time"


@dataclass(frozen=True)
class Scale:
    """What to do to one channel; nothing by default."""

    factor: float = 1.0
    divisor: float = 1.0
    decades: float = 0.0
    lowest: float = 1.0
    span: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return self.factor == 1 and self.divisor == 1 and self.decades == 0

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Return a channel on the linear scale, float64."""
        values = stored.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self.decades:
                return 10.0 ** (self.decades * values / self.span) * self.lowest
            return values * self.factor if self.factor != 1 else values / self.divisor


def read_scales(
    keywords: Keywords, names: Sequence[str], columns: Sequence[Column], repairs: Repairs
) -> list[Scale]:
    """Read ``$PnE``, ``$PnG`` and ``$TIMESTEP``.

    Parameters
    ----------
    keywords
        Of the data set.
    names
        ``$PnN``. The channel ``Time`` (any case) takes the time step, and no gain.
    columns
        How each channel is stored; floats are linear whatever ``$PnE`` says.
    repairs
        Receives what had to be assumed.
    """
    odd: dict[str, list[int]] = defaultdict(list)
    found = []
    times = [i for i, name in enumerate(names, start=1) if name.lower() == _TIME]
    step = _time_step(keywords, repairs) if times else 1.0
    if step != 1 and len(times) > 1:
        repairs.repair(f"several channels are called Time; all were scaled (n = {listed(times)})")
    for i, column in enumerate(columns, start=1):
        decades, lowest = _amplification(keywords, i, column, odd)
        is_time = i in times
        factor = step if is_time else 1.0
        gain = 1.0 if is_time else _gain(keywords, i, odd)
        if decades and (factor != 1 or gain != 1):
            other = "$TIMESTEP" if is_time else f"$P{i}G"
            raise Fault(
                f"$P{i}E is {shown(keywords[f'$P{i}E'])}, logarithmic, and {other} is "
                f"{shown(keywords[other])}: the standard does not say how they go together",
                other,
                keywords[other],
            )
        span = 1.0
        if decades:
            span = keywords.number(f"$P{i}R", 0)
            if not span > 0:
                text = keywords.need(f"$P{i}R")
                raise Fault(f"$P{i}R is {shown(text)} on a logarithmic channel", f"$P{i}R", text)
        found.append(Scale(factor, gain, decades, lowest, span))
    for text, numbers in odd.items():
        repairs.repair(f"{text} (n = {listed(numbers)})")
    return found


def _amplification(
    keywords: Keywords, i: int, column: Column, odd: dict[str, list[int]]
) -> tuple[float, float]:
    """Return decades and the value of 0, ``(0, 1)`` for a linear channel."""
    key = f"$P{i}E"
    is_float = column.kind in ("F", "D")
    text = keywords.get(key, "").strip(BLANKS)
    if not text:
        if not is_float:
            odd["$PnE is missing; taken as linear"].append(i)
        return 0.0, 1.0
    fields = [to_number(field.strip(" ")) for field in text.split(",")]
    if len(fields) == 2 and fields[0] == 0 and fields[1] is not None:
        return 0.0, 1.0
    if is_float:
        odd["$PnE is not 0,0, but floats are stored on the linear scale: $PnE is ignored"].append(
            i
        )
        return 0.0, 1.0
    if len(fields) != 2 or None in fields or min(fields) < 0:
        raise Fault(f"{key} is {shown(text)}, not two numbers from 0 on", key, text)
    decades, lowest = fields
    if lowest == 0:
        odd[f"$PnE is {text}; read as {decades:g},1, as the standard advises"].append(i)
        lowest = 1.0
    return decades, lowest


def _gain(keywords: Keywords, i: int, odd: dict[str, list[int]]) -> float:
    key = f"$P{i}G"
    gain = keywords.number(key, 1.0)
    if gain < 0:
        raise Fault(f"{key} is {shown(keywords[key])}, no gain", key, keywords[key])
    if gain == 0:
        odd["$PnG is 0; taken as no gain"].append(i)
        return 1.0
    return gain


def _time_step(keywords: Keywords, repairs: Repairs) -> float:
    text = keywords.get("$TIMESTEP", "").strip(BLANKS)
    if not text:
        return 1.0
    step = to_number(text)
    if step is None or step <= 0:
        repairs.repair(
            f"$TIMESTEP is {shown(text)}, no time: the time channel was not scaled",
            "$TIMESTEP",
            text,
        )
        return 1.0
    return step
