"""Ways to break an FCS file: known faults (``fcs_faults``), and blind changes of its bytes."""

from __future__ import annotations

import re
from random import Random

import fcs_faults_channels  # noqa: F401 (fills the register)
import fcs_faults_offsets  # noqa: F401
import fcs_faults_text  # noqa: F401
from fcs_faults import CRAFTED
from fcs_specimens import Specimen, build, specimen

BLIND = {}
"""Each changes bytes and knows nothing of them."""


def blind(function):
    BLIND[function.__name__] = function
    return function


def make(rng: Random, name: str | None = None) -> tuple[str, bytes, str, Specimen] | None:
    """Return a crafted file: name of the mutation, bytes, expectation, what it was made of."""
    name = name or rng.choice(list(CRAFTED))
    s = specimen(rng, plain=True)
    told = CRAFTED[name](rng, s)
    if told is None:
        return None
    return (name, *told, s) if isinstance(told, tuple) else (name, build(s), told, s)


def mutate(rng: Random, blob: bytes) -> tuple[str, bytes]:
    """Apply one to three blind mutations."""
    names = rng.choices(list(BLIND), k=rng.choice((1, 1, 1, 2, 3)))
    for name in names:
        blob = BLIND[name](rng, blob)
    return "+".join(names), blob


def _span(rng: Random, blob: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(blob))
    return start, min(len(blob), start + rng.choice((1, 1, 2, 3, 8, 30)))


@blind
def flip_bit(rng, blob):
    if not blob:
        return blob
    at = rng.randrange(len(blob))
    return blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :]


@blind
def change_byte(rng, blob):
    at = rng.randint(0, len(blob))
    return blob[:at] + bytes([rng.randrange(256)]) + blob[at + 1 :]


@blind
def change_header(rng, blob):
    at = rng.randrange(58)
    new = rng.choice(b"0123456789 -+_x\0")
    return blob[:at] + bytes([new]) + blob[at + 1 :]


@blind
def change_digit(rng, blob):
    digits = [m.start() for m in re.finditer(rb"[0-9]", blob[:3000])]
    if not digits:
        return blob
    at = rng.choice(digits)
    return blob[:at] + bytes([rng.choice(b"0123456789")]) + blob[at + 1 :]


@blind
def change_value(rng, blob):
    """A number of TEXT becomes another one of the same length."""
    numbers = [m.span() for m in re.finditer(rb"[0-9.]+", blob[58:3000])]
    if not numbers:
        return blob
    start, end = (58 + at for at in rng.choice(numbers))
    new = bytes(rng.choice(b"00123456789.,-+e_ ") for _ in range(end - start))
    return blob[:start] + new + blob[end:]


@blind
def insert(rng, blob):
    at = rng.randint(0, len(blob))
    new = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 9))))
    return blob[:at] + new + blob[at:]


@blind
def insert_delimiter(rng, blob):
    at = rng.randint(58, max(58, min(len(blob), 800)))
    return blob[:at] + blob[58:59] + blob[at:]


@blind
def delete(rng, blob):
    start, end = _span(rng, blob)
    return blob[:start] + blob[end:]


@blind
def truncate(rng, blob):
    return blob[: rng.randint(0, len(blob))]


@blind
def repeat(rng, blob):
    start, end = _span(rng, blob)
    return blob[:end] + blob[start:end] + blob[end:]


@blind
def overwrite(rng, blob):
    """A part of the file is written over another."""
    start, end = _span(rng, blob)
    to = rng.randint(0, len(blob))
    return blob[:to] + blob[start:end] + blob[to + end - start :]


@blind
def swap(rng, blob):
    a, b = sorted(_span(rng, blob))
    c, d = _span(rng, blob)
    if c < b:
        return blob
    return blob[:a] + blob[c:d] + blob[b:c] + blob[a:b] + blob[d:]


@blind
def swap_values(rng, blob):
    """Two pieces between delimiters change places, with room for none of the offsets to move."""
    delimiter = blob[58:59]
    parts = blob.split(delimiter) if delimiter else []
    for i in range(len(parts) - 1):
        j = rng.randint(i + 1, len(parts) - 1)
        if rng.random() < 0.1 and len(parts[i]) == len(parts[j]):
            parts[i], parts[j] = parts[j], parts[i]
            return delimiter.join(parts)
    return blob


@blind
def splice(rng, blob):
    """The start of this file, the end of another."""
    other = build(specimen(rng, plain=True))
    at = rng.randint(0, len(blob))
    return blob[:at] + other[min(at, len(other)) :]
