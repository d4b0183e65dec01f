"""Files of every kind, broken in every way: the right numbers or a refusal, nothing else.

``scripts/fuzz_fcs.py`` does the same by the million.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from types import SimpleNamespace

import fcs_judge
import numpy as np
import pytest
from fcs_judge import FAILURES, Case, case, verdict
from fcs_mutations import BLIND, CRAFTED, make, mutate
from fcs_specimens import build, specimen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scmoe.io import FCSReadError

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))
SMALL = sorted(p for p in DATA.glob("fcs/*/*") if p.is_file() and p.stat().st_size < 8000)
CHANCE = st.randoms(use_true_random=False)

steady = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file.fcs"


def check(this: Case, path: Path) -> str:
    found = verdict(this, path)
    assert found.kind not in FAILURES, f"{this.kind}: {found.detail}\n{this.blob!r}"
    return found.kind


@steady
@given(CHANCE)
def test_valid_files_are_read_exactly(path, rng):
    s = specimen(rng)
    check(Case("valid", build(s), "same", s), path)


def test_known_faults(path):
    for name in CRAFTED:
        rng = Random(name)
        made = [case for _ in range(20) if (case := make(rng, name))]
        assert made, name
        for _, blob, expect, s in made:
            check(Case(name, blob, expect, s, dataset=int(name == "second_data_set")), path)


def test_blind_mutations(path):
    for name, mutation in BLIND.items():
        rng = Random(name)
        kinds = set()
        for _ in range(50):
            blob = mutation(rng, build(specimen(rng, plain=True)))
            kinds.add(check(Case(name, blob, "judge"), path))
        assert "refused" in kinds, name


@steady
@given(CHANCE)
def test_several_mutations(path, rng):
    name, blob = mutate(rng, build(specimen(rng)))
    check(Case(name, blob, "judge"), path)


@steady
@given(CHANCE)
def test_strict_reading_agrees_or_refuses(path, rng):
    found = case(rng)
    path.write_bytes(found.blob)
    try:
        file = fcs_judge.read_file(path, dataset=found.dataset, dtype="float64")
    except FCSReadError:
        with pytest.raises(FCSReadError):
            fcs_judge.read_file(path, dataset=found.dataset, dtype="float64", strict=True)
        return
    try:
        strict = fcs_judge.read_file(path, dataset=found.dataset, dtype="float64", strict=True)
    except FCSReadError:
        assert file.repairs
    else:
        np.testing.assert_array_equal(strict.values, file.values)
        assert strict.repairs == file.repairs


@pytest.mark.skipif(not SMALL, reason="needs the public files of SCMOE_DATA_DIR")
def test_mutated_real_files(path):
    rng = Random(0)
    for file in SMALL:
        blob = file.read_bytes()
        check(Case(file.name, blob, "judge"), path)
        for _ in range(20):
            name, mutated = mutate(rng, blob)
            check(Case(f"{file.name}: {name}", mutated, "judge"), path)


@steady
@given(st.binary(max_size=300), st.sampled_from((b"", b"FCS3.1    ", b"\x1f\x8b\x08")))
def test_noise_is_refused(path, noise, start):
    check(Case("noise", start + noise, "error"), path)


@steady
@given(
    CHANCE,
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=8),
        st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20),
        max_size=5,
    ),
)
def test_private_keywords_change_nothing(path, rng, keywords):
    s = specimen(rng, plain=True)
    first = s.delimiter.decode()
    s.text += [
        [key, value]
        for key, value in keywords.items()
        if key.strip()[:1] not in ("", "$", first) and key[0] != first and value[0] != first
        if value.strip() and value.strip()[0] != first
    ]
    check(Case("private keywords", build(s), "same", s), path)


# -- the judge is worth nothing if it lets faults pass ----------------------------------------


def changed(file, **changes):
    names = ("values", "var", "keywords", "spillover", "repairs")
    return SimpleNamespace(**{name: getattr(file, name) for name in names} | changes)


FAULTS = {
    "shifted": lambda file: changed(file, values=file.values + 1),
    "transposed": lambda file: changed(file, values=file.values[::-1].copy()),
    "rounded": lambda file: changed(file, values=file.values.astype(np.float32).astype(float)),
    "renamed": lambda file: changed(file, var=file.var.assign(channel=file.var["channel"] + "x")),
    "cut": lambda file: changed(file, values=file.values[:-1]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("expect", ["same", "judge"])
def test_the_judge_notices(fault, expect, path, monkeypatch):
    read = fcs_judge.read_file
    monkeypatch.setattr(fcs_judge, "read_file", lambda *a, **kw: FAULTS[fault](read(*a, **kw)))
    rng = Random(1)
    for _ in range(100):
        s = specimen(rng, plain=True)
        if s.get("$DATATYPE") == "D" and len(s.values) > 1 and s.values[0] != s.values[-1]:
            break
    assert verdict(Case("valid", build(s), expect, s), path).kind == "misread"


@pytest.mark.parametrize("error", [ValueError, MemoryError, IndexError, RecursionError])
def test_the_judge_notices_other_errors(error, path, monkeypatch):
    def broken(*args, **kwargs):
        raise error("so")

    monkeypatch.setattr(fcs_judge, "read_file", broken)
    assert verdict(Case("any", b"", "either"), path).kind == "crashed"


def test_the_judge_notices_a_silent_repair(path, monkeypatch):
    read = fcs_judge.read_file
    s = specimen(Random(0), plain=True)
    s.shift_header = s.shift_text = (0, 1)
    s.tail = b"  "
    case = Case("late", build(s), "judge", s)
    assert verdict(case, path).kind == "repaired"
    monkeypatch.setattr(
        fcs_judge, "read_file", lambda *a, **kw: changed(read(*a, **kw), repairs=[])
    )
    assert verdict(case, path).kind == "silent"
