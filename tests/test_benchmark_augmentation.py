"""The benchmark of copies: which cells vote, and a run on few cells."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks import augmentation
from benchmarks.experiment import Options, execute

from scmoe._core.compat import one_thread

pytestmark = pytest.mark.slow


def test_a_cell_has_no_vote_on_its_copy(monkeypatch):
    monkeypatch.setattr(augmentation, "N_VOTES", 1)
    where = np.array([[0.0], [1.0], [10.0], [11.0]])
    truth = np.array(["a", "b", "b", "a"])
    found = augmentation.votes(where, truth, where, np.arange(4))
    assert found.tolist() == ["b", "a", "a", "b"]
    # a copy that has moved past the next cell
    moved = augmentation.votes(where, truth, np.array([[9.0]]), np.array([3]))
    assert moved.tolist() == ["b"]


def test_counts_are_looked_at_without_their_totals():
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (60, 5)).astype(np.float32)
    space = augmentation.components(np.log1p(counts))
    twice = space(torch.from_numpy(np.log1p(2 * counts)))
    np.testing.assert_allclose(twice, space(torch.from_numpy(np.log1p(counts))), atol=1e-4)


def test_few_cells(blobs, monkeypatch, tmp_path):
    def load():
        return blobs.X, blobs.obs["population"].to_numpy()

    monkeypatch.setattr(augmentation, "DATASETS", {"blobs": (load, augmentation.MARKERS)})
    monkeypatch.setattr(augmentation, "SMALL_STEPS", 4)
    monkeypatch.setattr(augmentation, "warm_up", lambda: None)
    path = tmp_path / "augmentation.json"
    options = Options([0], methods=["none", "dropout", "affine"], size="small")
    with one_thread():
        records = execute(augmentation, options, lambda line: None, path)
    none, dropout = records  # markers can't be turned
    assert none["method"] == "none"
    assert none["kept_clean"] == dropout["kept_clean"] > 0.95
    assert "kept" not in none
    assert dropout["kept"] == pytest.approx(dropout["kept_clean"], abs=0.05)
    assert 0 < dropout["moved"] < 0.5
    text = augmentation.section(json.loads(path.read_text()))
    assert "### blobs: 600 cells" not in augmentation.section({"records": []})
    assert "### blobs: 600 cells" in text
    assert "| dropout |" in text
