"""The benchmark of stability: cuts, what is said of made-up clusters, and a run on few cells."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks import stability
from benchmarks.experiment import Options, execute

from scmoe._core.compat import one_thread

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cut", stability.CUTS)
def test_halves_are_halves(cut):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(101, 3)) * [5, 1, 1]
    second = stability.halves(x, cut, rng)
    assert second.sum() == 50
    if cut == "across the largest spread":
        # the sides of the widest axis
        side = x[:, 0] > np.median(x[:, 0])
        assert abs(np.corrcoef(side, second)[0, 1]) > 0.8


def test_halves_of_clusters_that_are_found_have_half_their_index():
    x = np.random.default_rng(0).normal(size=(300, 4))
    truth = np.repeat(["a", "b", "c"], 100)
    runs = np.repeat([[0, 1], [1, 0], [2, 2]], 100, axis=0)
    record = stability.made_up(x, truth, runs, 0)
    assert record["whole"] == record["whole_stable"] == 1
    assert record["untouched"] == 0
    for cut in stability.CUTS:
        assert record[f"{cut}: mean"] == record[f"{cut}: largest"] == 0.5
        assert record[f"{cut}: stable"] == 0


def test_a_cut_that_runs_make_too_passes():
    x = np.random.default_rng(0).normal(size=(200, 2)) * [4, 1]
    truth = np.repeat(["a", "b"], 100)
    own = np.arange(200) < 100
    second = np.zeros(200, bool)
    second[own] = stability.halves(x[own], "across the largest spread", np.random.default_rng(0))
    runs = np.repeat((own.astype(np.int64) + second)[:, None], 2, axis=1)
    record = stability.made_up(x, truth, runs, 0)
    assert record["across the largest spread: largest"] == 1
    assert record["at random: stable"] == 0


def test_few_cells(blobs, monkeypatch, tmp_path):
    truth = blobs.obs["population"].to_numpy().astype(str)
    monkeypatch.setattr(stability, "DATASETS", ("blobs",))
    monkeypatch.setattr(stability.numbers, "load", lambda name, most: (blobs.X, truth))
    monkeypatch.setattr(stability, "N_RUNS", 2)
    monkeypatch.setattr(stability, "warm_up", lambda: None)
    path = tmp_path / "stability.json"
    options = Options([0], methods=["cpl-mixvae"], size="small")
    with one_thread():
        (record,) = execute(stability, options, lambda line: None, path)
    assert "error" not in record
    assert len(record["jaccard"]) == len(record["f"]) == record["n_clusters"]
    assert 0 <= record["n_stable"] <= record["n_clusters"]
    assert record["untouched"] == 0
    assert record["at random: largest"] < stability.STABLE
    text = stability.section(json.loads(path.read_text()))
    assert "| blobs | 600 | cpl-mixvae |" in text
    assert "### Clusters that were made up" in text
    assert "###" not in stability.section({"records": []})


def test_runs_judge_as_the_tool_does(blobs):
    """The runs that are kept give the same indices as a stability of the cut labels."""
    import scmoe

    settings = {"model": "cpl-mixvae", "n_clusters": 5, "train_kwargs": {"max_epochs": 2}}
    how = {"n_runs": 2, "random_state": 0, "progress": False}
    with one_thread():
        scmoe.tl.stability(blobs, key=None, key_added="free", **how, **settings)
        cut = blobs.obs["population"].astype(str).to_numpy(dtype=object)
        cut[np.flatnonzero(cut == "B")[::2]] = "invented"
        blobs.obs["cut"] = cut
        scmoe.tl.stability(blobs, key="cut", **how, **settings)
    runs = blobs.obsm["free_runs"]
    codes = np.stack([runs[name].cat.codes.to_numpy() for name in runs], 1).astype(np.int64)
    table = blobs.uns["cut_stability"]["clusters"]
    numbered = np.unique(cut.astype(str), return_inverse=True)[1]
    judged = stability.agreement(codes, numbered).mean_jaccard
    np.testing.assert_allclose(table["jaccard"].to_numpy(), judged)
