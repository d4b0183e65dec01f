"""The experiment on the number of clusters."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import numbers

pytestmark = pytest.mark.slow


def test_noise_is_no_cluster_but_scored_as_one():
    truth = np.array(["a", "a", "b", "b"])
    found = numbers.scores(truth, np.array([0, 0, 1, -1]))
    assert found["n_clusters"] == found["n_populations"] == 2
    assert found["noise"] == 0.25
    assert found["ari"] == pytest.approx(4 / 7)
    assert numbers.scores(truth, np.array([-1, -1, -1, -1]))["n_clusters"] == 0


def test_simple_methods_find_three_groups():
    rng = np.random.default_rng(0)
    x = (9 * np.eye(4)[np.arange(120) % 3] + rng.normal(size=(120, 4))).astype(np.float32)
    for method in (numbers.bic, numbers.silhouette):
        assert len(np.unique(method(x, 0))) == 3


def test_section():
    assert "number of clusters" in numbers.section({"records": []})
    scores = {"n_clusters": 8, "n_populations": 4, "nmi": 0.5, "ari": 0.4, "weighted_f": 0.6}
    record = {"dataset": "PBMC 68k", "n_cells": 700, "method": "density", "seed": 0}
    record |= scores | {"noise": 0.1, "seconds": 2.0}
    of_markers = record | {"dataset": "samusik RAMP", "method": "tree", "nmi": 0.7}
    others = [record | {"dataset": "MNIST", "nmi": 0.9}, of_markers]
    text = numbers.section({"records": [record, *others]})
    assert "\n| PBMC 68k | 4 |" in text
    markers, components = text.split("Components (1 data sets)")
    assert "| density | 1.00 | 0.500 | 0.400 | 0.600 |" in components
    assert "| tree | 1.00 | 0.700 | 0.400 | 0.600 |" in markers
