"""Reads a file with the package and says whether the answer is right."""

from __future__ import annotations

import math
import time
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

import fcs_mutations
from fcs_file import read_file
from fcs_reference import Reading, readings
from fcs_specimens import Specimen, build, chain, encode, specimen

from scmoe.io import FCSReadError

FAILURES = ("misread", "silent", "guessed", "accepted", "refused wrongly", "crashed", "slow")
BLANKS = " \t\r\n\x0b\x0c\0\x1c\x1d\x1e\x1f\x85\xa0"
SECOND = 1.0
REAL = 0.04
"""Share of blind mutations that are made to real files."""


@dataclass
class Case:
    """A file, and what may be answered to it."""

    kind: str
    blob: bytes
    expect: str
    """``same``, ``error``, ``either`` or ``judge``, see ``fcs_mutations``."""
    specimen: Specimen | None = None
    dataset: int = 0


@dataclass
class Verdict:
    """What was answered, and whether that is right."""

    kind: str
    """``read``, ``repaired``, ``refused``, ``refused though valid`` or one of ``FAILURES``."""
    detail: str = ""
    seconds: float = 0.0


def case(rng: Random, seeds: list[bytes] = ()) -> Case:
    """Return a file by chance: valid, crafted, or mutated blindly (``seeds`` among others)."""
    choice = rng.random()
    if choice < 0.1:
        s = specimen(rng)
        return Case("valid", build(s), "same", s)
    if choice < 0.4 and (made := fcs_mutations.make(rng)):
        name, blob, expect, s = made
        return Case(name, blob, expect, s, dataset=int(name == "second_data_set"))
    choice, dataset = rng.random(), 0
    if seeds and choice < REAL:
        blob = rng.choice(seeds)
    elif choice < 0.1:
        blob, dataset = chain(specimen(rng, plain=True), specimen(rng, plain=True)), 1
    else:
        blob = build(specimen(rng, plain=choice < 0.7))
    name, blob = fcs_mutations.mutate(rng, blob)
    return Case(name, blob, "judge", dataset=dataset)


def verdict(case: Case, path: Path) -> Verdict:
    """Write the file, read it, and compare."""
    path.write_bytes(case.blob)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            file = read_file(path, dataset=case.dataset, dtype="float64")
            # whatever is made when it is first asked for belongs to reading
            _ = file.var, file.keywords, file.spillover, file.repairs
    except FCSReadError as error:
        file, reason = None, str(error)
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        return Verdict("crashed", f"{type(error).__name__}: {error}")
    seconds = time.process_time() - start
    if seconds > SECOND:
        return Verdict("slow", f"{seconds:.2f} s", seconds)
    found = _refusal(case, reason) if file is None else _answer(case, file)
    found.seconds = seconds
    return found


def _refusal(case: Case, reason: str) -> Verdict:
    if case.expect == "same":
        return Verdict("refused wrongly", reason)
    if case.expect == "judge" and any(
        not way.departures for way in readings(case.blob, case.dataset)
    ):
        return Verdict("refused though valid", reason)
    return Verdict("refused", reason)


def _answer(case: Case, file) -> Verdict:
    kind = "repaired" if file.repairs else "read"
    if case.expect == "error":
        return Verdict("accepted", f"{file.values.tolist()}, repairs: {file.repairs}")
    if case.expect in ("same", "either"):
        s = case.specimen
        names = [_latin(name) for name in s.names]
        right = Reading(s.values, names, s.scaled, frozenset())
        if case.kind == "valid" and not _same_spillover(file.spillover, s):
            return Verdict("misread", f"spillover {file.spillover}, not {s.spillover}")
        if case.kind == "valid" and (key := _changed_keyword(file.keywords, s)):
            return Verdict("misread", f"the keyword {key}: {file.keywords}")
        if equal(file, right):
            return Verdict(kind)
        return Verdict("misread", _difference(file, [right]))
    ways = readings(case.blob, case.dataset)
    strict = [way for way in ways if not way.departures]
    fitting = [way for way in strict or ways if equal(file, way)]
    if not fitting:
        return Verdict("misread", _difference(file, strict or ways))
    if any(not equal(file, way) for way in strict):
        return Verdict("guessed", _difference(file, strict))
    overlooked = min((way.departures for way in fitting), key=len)
    overlooked = {text for text in overlooked if not text.endswith("(optional)")}
    if not strict and any(not equal(file, way) for way in ways):
        return Verdict("guessed", _difference(file, ways))
    if overlooked and not file.repairs:
        return Verdict("silent", "; ".join(sorted(overlooked)))
    return Verdict(kind)


def equal(file, reading: Reading) -> bool:
    """Whether these are the numbers and the names; bit for bit where nothing is scaled."""
    values = file.values.tolist()
    if len(values) != len(reading.values) or not _same_names(
        file.var["channel"], reading.names, seen=True
    ):
        return False
    return all(
        len(row) == len(other) and all(map(_close, row, other, reading.scaled))
        for row, other in zip(values, reading.values, strict=True)
    )


def _close(ours: float, right: float, scaled: bool) -> bool:
    if ours != ours or right != right:
        return ours != ours and right != right
    if scaled:
        return math.isclose(ours, right, rel_tol=1e-12)
    return ours == right and math.copysign(1, ours) == math.copysign(1, right)


def _same_names(ours, names: list[str], *, seen: bool = False) -> bool:
    """Whether the names are the bytes of the file, decoded as Latin-1 or as UTF-8.

    With `seen`, characters without a shape count for nothing.
    """
    if len(ours) != len(names):
        return False
    for mine, name in zip(ours, names, strict=True):
        decoded = {name.strip(BLANKS)}
        for errors in ("strict", "replace"):
            try:
                decoded.add(name.encode("latin-1").decode("utf-8", errors).strip(BLANKS))
            except UnicodeDecodeError:
                continue
        if mine.strip(BLANKS) not in decoded and not (
            seen and mine.isprintable() and _seen(mine) in map(_seen, decoded)
        ):
            return False
    return True


def _seen(name: str) -> str:
    """Return a name without blanks and what has no shape."""
    return "".join(c for c in name if not c.isspace() and unicodedata.category(c)[0] != "C")


def _same_spillover(ours, s: Specimen) -> bool:
    return (None if ours is None else ours.to_numpy().tolist()) == s.spillover


def _changed_keyword(ours: dict[str, str], s: Specimen) -> str | None:
    """Return a keyword of the file that was not read, or with another value."""
    for key, value in s.text + (s.supplement or []):
        plain = key.lower().removeprefix("$")
        # a private keyword that is called like one of the standard has a "_" behind it
        found = [ours.get(plain, ""), ours.get(plain + "_", "")]
        if value[:1] != "{" and not any(_same_names([mine], [_latin(value)]) for mine in found):
            return key
    return None


def _latin(text: str) -> str:
    """Return one character for each byte that the text takes in a file."""
    return encode(text).decode("latin-1")


def _difference(file, ways: list[Reading]) -> str:
    said = [f"{way.names} {way.values} {sorted(way.departures)}" for way in ways]
    return (
        f"read as {list(file.var['channel'])} {file.values.tolist()}, repairs {file.repairs}; "
        f"says {' or '.join(said) or 'nothing'}"
    )
