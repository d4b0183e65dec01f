"""The benchmark of marker priors: its tables, its scores, and a run on few cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from benchmarks import organs
from benchmarks.experiment import Options
from benchmarks.organs import Data

from scmoe._core.compat import one_thread

pytestmark = pytest.mark.slow

TABLE = {"T": ["CD3"], "B": ["CD19"], "NK": ["CD56"], "mono": ["CD14"], "pDC": ["CD123"]}


@pytest.fixture
def toy(blobs, monkeypatch):
    """The blobs as a data set of the benchmark, and few steps."""
    data = Data(blobs.copy, TABLE, useless="CD45")
    monkeypatch.setattr(organs, "DATASETS", {"toy": data})
    monkeypatch.setattr(organs, "ROBUST", ("toy",))
    monkeypatch.setattr(organs, "TUNED_ON", "toy")
    monkeypatch.setattr(organs, "STEPS", 5)
    with one_thread():
        yield data


def test_tables_drop_swap_and_spoil(toy):
    tables = organs.tables("toy")
    assert list(tables) == [
        "literature",
        *(f"without {name}" for name in TABLE),
        organs.SWAPPED,
        organs.USELESS,
    ]
    assert list(tables["without NK"]) == ["T", "B", "mono", "pDC"]
    assert tables[organs.SWAPPED] == TABLE | {"T": ["CD19"], "B": ["CD3"]}
    assert tables[organs.USELESS] == TABLE | {"pDC": ["CD45"]}


def test_useless_genes_and_markers_survive_the_choice_of_genes():
    rng = np.random.default_rng(0)
    names = [f"gene_{i}" for i in range(1_200)]
    cells = ad.AnnData(
        rng.poisson(1, (60, 1_200)).astype(np.float32),
        obs=pd.DataFrame({"population": ["a", "b"] * 30}, index=map(str, range(60))),
        var=pd.DataFrame(index=names),
    )
    cells.X[:, 7] = 0
    data = {"toy": Data(lambda: cells, {"a": ["gene_3"], "b": ["gene_3-"]}, useless="gene_5")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(organs, "DATASETS", data)
        found = organs.prepared("toy")
    assert {"gene_3", "gene_5"} <= set(found.var_names)
    assert organs.N_GENES <= found.n_vars <= organs.N_GENES + 2
    assert found.X.dtype == np.float32


def test_components_are_of_scaled_values():
    x = np.array([[0, 10], [5, 10], [10, 10]], dtype=np.float32)
    np.testing.assert_allclose(organs.components(x), [[0, 0], [0.5, 0], [1, 0]])
    wide = np.random.default_rng(0).random((30, 20)).astype(np.float32)
    assert organs.components(wide, 5).shape == (30, 5)


def test_rule_leaves_what_it_cannot_decide(toy):
    cells = ad.AnnData(np.zeros((3, 2), dtype=np.float32))
    cells.obsm["marker_prior"] = pd.DataFrame(
        [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], columns=["T", "B"], index=cells.obs_names
    )
    assert organs.rule(cells, cells, 0).tolist() == ["T", organs.UNDECIDED, organs.UNDECIDED]


def test_names_count_only_where_they_are_right():
    truth, found = np.array(["cd4+", "cd4+", "nk"]), np.array(["CD4 T", "nk", "nk"])
    assert organs.named_right(truth, found, {"cd4+": "CD4 T"}).tolist() == [True, False, True]


def test_class_that_was_left_out(toy):
    cells = ad.AnnData(
        np.zeros((6, 1), dtype=np.float32),
        obs=pd.DataFrame({"population": ["NK"] * 4 + ["T"] * 2}, index=map(str, range(6))),
    )
    found = np.array(["0", "0", "0", "T", "T", "T"])
    assert organs.left_out("toy", cells, found, "NK", {"T": ["CD3"]}) == {
        "left_out_f1": pytest.approx(6 / 7),  # precision 1, recall 3/4
        "left_out_free": 0.75,
    }


def test_runs_and_shows_what_it_measured(toy, monkeypatch):
    tables = {organs.LITERATURE: TABLE, "without NK": {k: TABLE[k] for k in TABLE if k != "NK"}}
    monkeypatch.setattr(organs, "tables", lambda name: tables)
    methods = [organs.RULE, organs.CLASSIFIER, organs.ALONE, organs.BLEND, organs.GRAPH, "k-means"]
    records = list(organs.run(Options([0], methods=methods), lambda line: None))
    assert not [record["error"] for record in records if "error" in record]
    full = {r["method"]: r for r in records if r["table"] == organs.LITERATURE}
    assert list(full) == methods
    # some are above the average of a marker that is not theirs, by chance
    assert full[organs.RULE]["right_certain"] > 0.9
    assert full[organs.RULE]["right_others"] == 0
    # chance is about a fifth
    assert full[organs.CLASSIFIER]["right_others"] > 0.6
    assert full["k-means"]["weighted_f"] > 0.9
    assert "right_others" not in full["k-means"]
    others = [r["method"] for r in records if r["table"] != organs.LITERATURE]
    assert others == [organs.RULE, organs.ALONE, organs.BLEND, organs.GRAPH]
    assert 0 <= records[-1]["left_out_f1"] <= 1
    text = organs.section({"records": records})
    assert "### toy" in text
    assert "| toy | without NK | scmoe, prior and graph |" in text
    assert organs.section({"records": []}) == organs.TEXT
