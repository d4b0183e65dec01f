"""The benchmark of coupled arms: consensus, states and costs by hand, and short runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks import coupled
from benchmarks.experiment import Options, execute

from scmoe._core.compat import one_thread

pytestmark = pytest.mark.slow


def test_a_cell_is_right_where_its_cluster_is_mostly_its_population():
    truth = np.array(["a", "a", "b", "b", "b", "c"])
    found = np.array(["0", "0", "0", "1", "1", "1"])
    right = coupled.own_population(truth, found)
    assert right.tolist() == [True, True, False, True, True, False]


def test_what_consensus_says():
    right = np.array([True, True, True, False, False])
    consensus = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    entropy = np.array([0.1, 0.2, 0.5, 0.4, 0.6])
    assert coupled.of_consensus(right, consensus, entropy) == {
        "right": 0.6,
        "agree": 0.6,
        "right_agree": pytest.approx(2 / 3),
        "right_disagree": 0.5,
        # 5 of the 6 pairs of a wrong and a right cell
        "auc_entropy": pytest.approx(5 / 6),
    }
    assert coupled.of_consensus(right[:3], None, entropy[:3]) == {"right": 1.0}
    all_agree = coupled.of_consensus(right, np.ones(5), entropy)
    assert all_agree["right_disagree"] is None


def bar(slope: float, half: int, side: int = 28) -> np.ndarray:
    """A bar that moves to the right by ``slope`` pixels a row, and is 2 ``half`` + 1 wide."""
    y, x = np.mgrid[:side, :side] - side // 2
    inside = (np.abs(x - slope * y) <= half) & (np.abs(y) <= 8)
    return inside.astype(np.float32).ravel()


def test_slant_and_width_of_bars():
    found = coupled.shapes(np.stack([bar(0, 1), bar(0, 3), bar(0.5, 3), bar(-0.5, 3)]))
    np.testing.assert_allclose(found["slant"], [0, 0, 0.5, -0.5], atol=0.02)
    # the deviation of 3 and of 7 pixels side by side; some slanted rows have 6
    straight = [np.sqrt(2 / 3), 2, 2, 2]
    np.testing.assert_allclose(found["width"], straight, rtol=0.1)
    shifted = np.roll(bar(0.5, 3).reshape(28, 28), (2, -3), (0, 1)).reshape(1, -1)
    assert coupled.shapes(shifted)["slant"] == pytest.approx(found["slant"][2])


def test_states_explain_what_they_hold():
    rng = np.random.default_rng(0)
    x = np.stack([bar(s, 2) for s in rng.uniform(-0.6, 0.6, 200)])
    slant = coupled.shapes(x)["slant"]
    assert coupled.explained(slant[:, None] * [[2.0, -1.0]], slant) == pytest.approx(1)
    # in each category the state has the slant on a scale of its own
    found = np.where(np.arange(200) < 100, "0", "1")
    state = np.stack([np.where(found == "0", slant, 5 - slant), rng.normal(size=200)], 1)
    record = coupled.of_states(x, found, state)
    assert record["r2_slant"] == pytest.approx(1)
    assert record["spearman_slant"] == pytest.approx(1)
    assert record["pca_r2_slant"] > 0.8
    nothing = coupled.of_states(x, found, rng.normal(size=(200, 2)))
    assert nothing["r2_slant"] < 0.15


def test_costs(monkeypatch):
    monkeypatch.setattr(coupled, "ARMS", (1, 2))
    monkeypatch.setattr(coupled, "CATEGORIES", (3, 6))
    monkeypatch.setattr(coupled, "COST_CELLS", 600)
    records = coupled.costs("small")
    assert next(iter(records)) == "A=1, K=3"
    assert records["A=1, K=3"]["memory_ratio"] == 1
    assert records["A=1, K=3"]["mib"] < records["A=1, K=6"]["mib"] < records["A=2, K=6"]["mib"]
    # a loop has the weights of two, and the way back of one
    looped = records["A=2, K=3, a loop over single arms"]["mib"]
    assert records["A=1, K=3"]["mib"] < looped < records["A=2, K=3"]["mib"]


def test_few_cells(blobs, monkeypatch, tmp_path):
    truth = blobs.obs["population"].to_numpy()
    data = coupled.Data(lambda: (blobs.X, truth))
    rng = np.random.default_rng(0)
    slopes, halves = rng.uniform(-0.4, 0.4, 300), np.where(np.arange(300) % 2, 1, 4)
    digits = np.stack([bar(*shape) for shape in zip(slopes, halves, strict=True)])
    # no two of them the same
    digits = np.clip(digits + rng.uniform(0, 0.1, digits.shape), 0, 1).astype(np.float32)
    images = coupled.Data(lambda: (digits, halves.astype(str)), images=True)
    monkeypatch.setattr(coupled, "DATASETS", {"blobs": data, "bars": images})
    monkeypatch.setattr(coupled, "SMALL_EPOCHS", 2)
    monkeypatch.setattr(coupled, "ARMS", (1, 2))
    monkeypatch.setattr(coupled, "CATEGORIES", (3,))
    monkeypatch.setattr(coupled, "REPEATS", {"small": 1})
    monkeypatch.setattr(coupled, "warm_up", lambda: None)
    path = tmp_path / "coupled.json"
    ablation = [*coupled.METHODS][-1]
    options = Options([0], methods=[coupled.TOLD_K, coupled.ONE_ARM, ablation], size="small")
    with one_thread():
        records = execute(coupled, options, lambda line: None, path)
    assert not [record["error"] for record in records if "error" in record]
    two, one, *bars = [record for record in records if record["dataset"] != coupled.COST]
    # ablations are for some data sets alone
    assert [r["method"] for r in (two, one)] == [coupled.TOLD_K, coupled.ONE_ARM]
    assert 0 <= two["consensus"] <= 1
    assert "consensus" not in one
    assert "r2_slant" not in two
    assert all(record["r2_slant"] <= 1 for record in bars)
    text = coupled.section(json.loads(path.read_text()))
    assert "### blobs, coupled: 600 cells, 5 populations" in text
    assert "### States of digits" in text
    assert "| time | K = 3 | 1.0 |" in text
    assert "###" not in coupled.section({"records": []})
