"""The page: whole, alone, and safe from the names in the data."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from scmoe._core.signatures import UNASSIGNED
from scmoe.cli._report import write_report
from scmoe.cli._settings import Settings
from scmoe.cli._tables import cluster_table
from scmoe.get import gates
from scmoe.pl import set_colors
from scmoe.similarity import DensityTree
from scmoe.tl import cluster

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ & 'x'"


class Page(HTMLParser):
    """What is on the page; a tag that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def values(self, tag, name):
        return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def keywords(cytometer):
    return pd.DataFrame({"value": [cytometer]}, index=["cyt"])


def clustered(adata, key="scmoe"):
    """Labels and all that a clustering writes, without one."""
    codes = adata.obs["population"].cat.codes.to_numpy()
    proba = np.full((adata.n_obs, 5), 0.05, dtype=np.float32)
    proba[np.arange(adata.n_obs), codes] = 0.8
    names = [str(i) for i in range(5)]
    adata.obs[key] = pd.Categorical.from_codes(codes, names)
    adata.obsm[f"{key}_proba"] = pd.DataFrame(proba, adata.obs_names, names)
    adata.obsm["X_umap"] = adata.X[:, :2]
    adata.uns[key] = {
        "params": {"random_state": 0, "similarity": {"name": "Graph"}},
        "n_clusters": 5,
        "history": pd.DataFrame({"loss": [3.0, 2.0, 1.5]}),
    }
    set_colors(adata, key)
    return adata


@pytest.fixture
def page_of(tmp_path):
    """The page of clustered cells."""

    def write(adata, *, shown=None, warnings=(), markers=None, has_fcs=False, **options):
        options = {"files": ("plate",), "output": tmp_path / "out", **options}
        settings = Settings(**options)
        markers = list(adata.var_names) if markers is None else markers
        path = tmp_path / "report.html"
        write_report(
            path,
            adata,
            table=cluster_table(adata, settings.key, markers),
            markers=markers,
            shown=shown,
            basis="X_umap",
            settings=settings,
            facts={"transform": "arcsinh(x / 5) of mass"},
            warnings=list(warnings),
            has_fcs=has_fcs,
        )
        return Page(path.read_text(encoding="utf-8"))

    return write


def test_pieces(page_of, blobs):
    adata = clustered(blobs)
    adata.obs["sample"] = pd.Categorical(["A01", "A02"] * 300)
    adata.uns["fcs"] = {
        "A01": {"file": "A01.fcs", "keywords": keywords("Helios"), "repairs": ["late end"]},
        "A02": {"file": "A02.fcs", "keywords": {"tot": "5"}, "repairs": [], "version": "FCS3.1"},
    }
    adata.uns["scmoe"]["manifest"] = {"data": "sha256:abc", "versions": {"torch": "2.0.0"}}
    page = page_of(adata, shown=adata, warnings=["look here"])
    ids = page.values("h2", "id")
    expected = "map clusters markers samples confidence next read training settings"
    assert ids == expected.split()
    # every link leads somewhere
    assert {f"#{name}" for name in ids} == set(page.values("a", "href"))
    for told in [
        "600 cells",
        "look here",
        "45.0 %",  # the largest population
        "late end ( A01 )",
        "Helios",
        "FCS3.1",
        "arcsinh(x / 5) of mass",
        "sha256:abc",
        "torch 2.0.0",
        'sc.read_h5ad("cells.h5ad")',
    ]:
        assert told in page.words, told
    # two maps, a map a marker, heat map, two of confidence, loss
    assert len(page.values("img", "src")) == 2 + 8 + 1 + 2 + 1


def test_tree_and_gates(page_of, blobs):
    quick = {"max_steps": 2, "accelerator": "cpu"}
    cluster(blobs, train_kwargs=quick, progress=False)
    set_colors(blobs, "scmoe")
    page = page_of(blobs)
    assert "tree" in page.values("h2", "id")
    assert "#tree" in page.values("a", "href")
    assert len(page.values("img", "src")) == 1 + 1 + 2 + 1
    lines = gates(blobs)
    assert len(lines) > 1
    for name, row in lines.iterrows():
        assert f"{name} {row['gates']} {row['f1']:.2f}" in page.words


def test_one_population_has_no_tree(page_of, blobs):
    adata = clustered(blobs)
    tree = DensityTree(significance=1000).bind(blobs, blobs.X).tree
    labels = pd.DataFrame({"0": [adata.n_obs]}, index=["0"])
    adata.uns["scmoe"]["tree"] = {**tree.to_record(), "labels": labels}
    page = page_of(adata)
    assert "tree" not in page.values("h2", "id")
    assert "#tree" not in page.values("a", "href")


def test_page_needs_nothing_else(page_of, blobs):
    page = page_of(clustered(blobs), shown=blobs)
    assert "script" not in page.tags
    assert "link" not in page.tags
    for source in page.values("img", "src"):
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert all(page.values("img", "alt"))
    assert all(href.startswith("#") for href in page.values("a", "href"))


def test_names_from_the_data_are_text(page_of, blobs):
    adata = clustered(blobs)
    adata.var_names = [EVIL, *adata.var_names[1:]]
    adata.obs["sample"] = pd.Categorical([EVIL, "A02"] * 300)
    adata.uns["fcs"] = {
        EVIL: {"file": EVIL, "version": EVIL, "keywords": keywords(EVIL), "repairs": [EVIL]},
        "A02": {},
    }
    adata.obs["scmoe"] = adata.obs["scmoe"].cat.rename_categories({"0": EVIL})
    adata.uns["scmoe"]["params"]["layer"] = EVIL
    adata.uns["scmoe"]["manifest"] = {EVIL: EVIL}
    page = page_of(adata, shown=adata, warnings=[EVIL], files=(EVIL, f"a/{EVIL}"))
    assert "script" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert set(page.values("img", "src")) == {
        source for source in page.values("img", "src") if source.startswith("data:image/png")
    }
    # and they are there to read: in the warning, the marker, the sample, the file, ...
    assert page.words.count("<script>alert(1)</script>") >= 8


def test_key_in_the_example_is_code(page_of, blobs):
    key = "it's </pre><b>"
    adata = clustered(blobs, key)
    page = page_of(adata, key=key)
    assert "b" not in page.tags


def test_without_map(page_of, blobs):
    page = page_of(clustered(blobs))
    assert "map" not in page.values("h2", "id")
    assert len(page.values("img", "src")) == 1 + 2 + 1


def test_map_of_some_cells(page_of, blobs):
    adata = clustered(blobs)
    page = page_of(adata, shown=adata[::3].copy())
    assert "UMAP of 200 of 600 cells, drawn at random" in page.words


def test_cells_without_cluster(page_of, blobs):
    adata = clustered(blobs)
    adata.obs.loc[adata.obs_names[:30], "scmoe"] = np.nan
    page = page_of(adata, shown=adata)
    assert "30 cells (5.0 %) have no cluster." in page.words
    assert UNASSIGNED in page.words


def test_codes_in_fcs(page_of, blobs):
    adata = clustered(blobs)
    adata.obs["scmoe"] = adata.obs["scmoe"].cat.rename_categories(["B", "D", "K", "M", "T"])
    adata.obs["scmoe_outlier"] = np.linspace(0, 1, 600, dtype=np.float32)
    page = page_of(adata, has_fcs=True)
    assert "scmoe_outlier with how far out a cell lies" in page.words
    assert "cluster number B 1 D 2 K 3 M 4 T 5" in page.words
    assert "Cytobank" not in page_of(adata).words


def test_many_samples_and_markers(page_of, blobs):
    adata = clustered(blobs)
    adata.obs["sample"] = pd.Categorical([f"s{i % 150}" for i in range(600)])
    page = page_of(adata, shown=adata)
    assert "50 more samples are in abundance.csv" in page.words
    # no map by sample: nobody can tell 150 colours apart
    assert len(page.values("img", "src")) == 1 + 8 + 1 + 2 + 1


def test_harmless_repairs_alarm_nobody(page_of, blobs, tmp_path):
    adata = clustered(blobs)
    adata.obs["sample"] = pd.Categorical(["A01", "A02"] * 300)
    late = "TEXT gives the end of DATA one byte late"
    adata.uns["fcs"] = {name: {"repairs": [late], "keywords": {}} for name in ("A01", "A02")}
    told = "2 of 2 files disagree with the FCS standard and were read nevertheless"
    page = page_of(adata, warnings=[told])
    assert "Please look at" not in page.words
    assert f"{late} (all files)" in page.words
    # but what is lost is told
    adata.uns["fcs"]["A02"]["repairs"] = [late, "the spillover matrix was left out: odd"]
    page = page_of(adata, warnings=[told])
    box = page.words[page.words.index("Please look at") :]
    assert box.index("left out: odd ( A02 )") < box.index("Clusters")


def test_command_names_and_abundances(page_of, blobs):
    adata = clustered(blobs)
    adata.obs["sample"] = pd.Categorical(["A01", "A02"] * 300)
    adata.uns["scmoe"]["params"]["neighbors"] = "given"
    page = page_of(adata, command="scmoe cluster 'my plate' -o out")
    assert "The command line: scmoe cluster 'my plate' -o out" in page.words
    assert "abundance.csv" in page.words
    # one word on the graph, that of the run
    assert "given" not in page.words
    name = cluster_table(adata, "scmoe", list(adata.var_names)).loc["0", "name"]
    assert f"0 {name} 270" in page.words


@pytest.mark.parametrize("n_clusters", [1, 30])
def test_few_and_many_clusters_of_odd_names(page_of, blobs, n_clusters):
    adata = blobs
    names = ["cluster \u202e אב " + "x" * 200 + str(i) for i in range(n_clusters)]
    codes = np.arange(adata.n_obs) % n_clusters
    adata.obs["population"] = pd.Categorical.from_codes(np.zeros(adata.n_obs, int), ["a"])
    clustered(adata)
    adata.obs["scmoe"] = pd.Categorical.from_codes(codes, names)
    adata.uns["scmoe"]["n_clusters"] = n_clusters
    set_colors(adata, "scmoe")
    page = page_of(adata, shown=adata, markers=list(adata.var_names[:2]))
    assert "\u202e" not in page.words
    assert page.words.count(names[0].replace("\u202e", "\\u202e")) >= 1
    png = base64.b64decode(page.values("img", "src")[0].split(",")[1])
    # width of the map: long names leave it readable
    assert int.from_bytes(png[16:20], "big") < 1200


@pytest.mark.slow
def test_markers_called_like_our_columns(page_of, blobs):
    blobs.var_names = ["cells", "share", "median_probability", "consensus", *blobs.var_names[4:]]
    page = page_of(clustered(blobs), shown=blobs)
    assert "45.0 %" in page.words
    assert "Consensus:" not in page.words
