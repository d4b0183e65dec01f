"""The register of known faults of FCS files.

A fault is a function of the generator of chance and a specimen, which it changes; it returns
what a reader may answer: ``same`` (the right numbers), ``error`` (a refusal), ``either``, or
``judge`` (what the reference reader finds in the bytes, or a refusal); with the bytes, where
it made them itself; or None where it does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from fcs_specimens import Specimen

Crafted = Callable[[Random, Specimen], "tuple[bytes, str] | str | None"]
CRAFTED: dict[str, Crafted] = {}
"""Every fault by its name; the modules ``fcs_faults_...`` fill it."""


def crafted(function: Crafted) -> Crafted:
    CRAFTED[function.__name__] = function
    return function


def any_channel(rng: Random, s: Specimen) -> int:
    return rng.randint(1, len(s.names))


def is_old(s: Specimen) -> bool:
    """Whether only HEADER tells the place of DATA."""
    return s.version == "FCS2.0"


def without_gap(s: Specimen) -> bool:
    """Whether numbers follow one another bit by bit; other layouts may take as many bytes."""
    pairs = s.text + (s.supplement or [])
    widths = [value for key, value in pairs if re.fullmatch(r"\$P\d+B", key) and value != "*"]
    return any(int(width) % 8 for width in widths)
