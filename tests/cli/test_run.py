"""From files to a folder of results."""

from __future__ import annotations

import errno
import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up import as_intensities

from scmoe import io, pp, tl
from scmoe.cli import _run, main
from scmoe.cli._cells import find_cells, read_cells
from scmoe.cli._console import in_options
from scmoe.io import read_fcs
from scmoe.model import CplMixVAE, MoESimVAE
from scmoe.tree import Tree

SURFACE = ["CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR", "CD7"]


@pytest.fixture(scope="module")
def whole(plate, tmp_path_factory):
    """A run with everything that can be had."""
    out = tmp_path_factory.mktemp("whole") / "new" / "out"
    words = ["cluster", plate, "-o", out, "--n-clusters", "5", "--max-epochs", "4", "--no-fcs"]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    return out


@pytest.fixture
def h5ad(blobs, tmp_path):
    """The shared blobs as a file."""
    path = tmp_path / "blobs.h5ad"
    blobs.write_h5ad(path)
    return path


def warnings_of(result):
    """The warnings, but for those of few cells and of a training of an epoch."""
    lines = [line for line in result.stderr.splitlines() if "warning" in line]
    few = "All cells came into one cluster", "The tree finds no more than"
    return [line for line in lines if not any(words in line for words in few)]


def test_folder(whole):
    assert sorted(p.name for p in whole.iterdir()) == [
        "abundance.csv",
        "cells.h5ad",
        "clusters.csv",
        "model",
        "report.html",
        "run.json",
    ]
    # nothing beside it
    assert list(whole.parent.iterdir()) == [whole]


def test_cells(whole, plate):
    adata = ad.read_h5ad(whole / "cells.h5ad")
    raw = read_fcs(plate)
    assert list(adata.obs_names) == list(raw.obs_names)
    assert list(adata.var_names) == list(raw.var_names)
    assert list(adata.uns["scmoe"]["markers"]) == SURFACE
    np.testing.assert_array_equal(adata[:, SURFACE].X, np.arcsinh(raw[:, SURFACE].X / 5))
    np.testing.assert_array_equal(adata[:, "Time"].X, raw[:, "Time"].X)
    # neither a graph nor another copy of the values
    assert not adata.obsp
    assert set(adata.obsm) == {"X_scmoe", "scmoe_proba"}


def test_table(whole):
    adata = ad.read_h5ad(whole / "cells.h5ad")
    table = pd.read_csv(whole / "clusters.csv", index_col="cluster", dtype={"cluster": str})
    assert list(table.index) == list(adata.obs["scmoe"].cat.categories)
    assert table["cells"].sum() == 300
    assert table["share"].sum() == pytest.approx(1)
    of_0 = adata[adata.obs["scmoe"] == "0", "CD3"].X
    assert table.loc["0", "CD3"] == pytest.approx(np.median(of_0), rel=1e-6)
    assert "Time" not in table


def test_abundance_and_command(whole, plate):
    adata = ad.read_h5ad(whole / "cells.h5ad")
    table = pd.read_csv(whole / "abundance.csv", dtype={"cluster": str})
    assert table["cells"].sum() == 300
    of_0 = table[(table["sample"] == "A02") & (table["cluster"] == "0")]
    cells = adata.obs[adata.obs["sample"] == "A02"]
    assert of_0["cells"].item() == (cells["scmoe"] == "0").sum()
    assert of_0["share"].item() == pytest.approx(of_0["cells"].item() / 150)
    page = (whole / "report.html").read_text()
    assert f"<pre>scmoe cluster {plate} -o {whole}" in page
    populations = Tree.from_record(adata.uns["scmoe"]["tree"]).n_clusters
    assert f"<td>density tree, {populations} populations</td>" in page
    assert "<td>not used</td>" in page


def test_model(whole):
    adata = ad.read_h5ad(whole / "cells.h5ad")
    used = adata[:, list(adata.uns["scmoe"]["markers"])].copy()
    model = MoESimVAE.load(whole / "model", used, accelerator="cpu")
    assert list(model.predict()) == list(adata.obs["scmoe"])


@pytest.mark.slow
def test_same_command_same_clusters(scmoe, plate):
    labels = []
    for output in ("a", "b"):
        assert scmoe(plate, output=output).exit_code == 0
        labels.append(list(ad.read_h5ad(scmoe.home / output / "cells.h5ad").obs["scmoe"]))
    assert labels[0] == labels[1]


def test_options_arrive(scmoe, plate, monkeypatch):
    seen = {}

    def cluster(adata, **options):
        seen.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(tl, "cluster", cluster)
    (scmoe.home / "markers.txt").write_text("CD3\n\n CD4 \nCD14\n")
    result = scmoe(
        *[plate, "--preset", "cytof", "--similarity", "graph", "--markers", "markers.txt"],
        *["--exclude", "CD14", "--batch-key", "sample", "--seed", "7", "--key", "mine"],
    )
    assert result.exit_code == 1
    assert type(seen.pop("similarity")).__name__ == "Graph"
    assert seen.pop("save_model").name == "model"
    assert seen == {
        "model": "moe-sim-vae",
        "n_clusters": 5,
        "n_latent": None,
        "preset": "cytof",
        "markers": ["CD3", "CD4"],
        "layer": None,
        "landmarks": True,
        "key_added": "mine",
        "random_state": 7,
        "progress": True,
        "batch_key": "sample",
        "train_kwargs": {"max_epochs": 1},
    }


def test_mixture_of_vaes(scmoe, plate):
    result = scmoe(plate, "--model", "moe-vae", "--n-clusters", "3", "--n-latent", "2")
    assert result.exit_code == 0, result.stderr
    assert "searching neighbours" not in result.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    params = adata.uns["scmoe"]["params"]
    assert (params["model"], params["n_clusters"], params["n_latent"]) == ("moe-vae", 3, 2)
    assert adata.obsm["scmoe_proba"].shape == (300, 3)
    page = (scmoe.home / "out" / "report.html").read_text()
    assert "scmoe.model.MoEVAE.load" in page
    assert "Consensus" not in page


def test_coupled_arms(scmoe, plate):
    result = scmoe(plate, "--model", "cpl-mixvae", "--n-clusters", "auto", "--n-latent", "3")
    assert result.exit_code == 0, result.stderr
    assert "searching neighbours" not in result.stderr
    out = scmoe.home / "out"
    adata = ad.read_h5ad(out / "cells.h5ad")
    record = adata.uns["scmoe"]
    assert record["params"]["train_kwargs"] == {"max_epochs": 1, "prune_epochs": 1}
    assert adata.obsm["scmoe_state"].shape == (300, 3)
    table = pd.read_csv(out / "clusters.csv", index_col="cluster", dtype={"cluster": str})
    names = list(adata.obsm["scmoe_proba"].columns)
    expected = [record["categories"]["consensus"][names.index(name)] for name in table.index]
    np.testing.assert_allclose(table["consensus"], expected)
    page = (out / "report.html").read_text()
    assert '<th class="n">consensus</th>' in page
    assert "scmoe.model.CplMixVAE.load" in page
    used = adata[:, list(record["markers"])].copy()
    model = CplMixVAE.load(out / "model", used, accelerator="cpu")
    assert list(model.predict()) == list(adata.obs["scmoe"])


def test_numbers_that_are_found(scmoe, plate):
    result = scmoe(plate, "--n-clusters", "auto")
    assert result.exit_code == 0, result.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    estimate = adata.uns["scmoe"]["estimates"]["n_clusters"]
    assert adata.uns["scmoe"]["params"]["n_clusters"] == "auto"
    assert adata.obsm["scmoe_proba"].shape[1] == estimate["n_clusters"] > 1


@pytest.mark.slow
def test_batches(scmoe, plate):
    words = ["--batch-key", "sample", "--similarity", "graph"]
    result = scmoe(plate, *words, maps=True)
    assert result.exit_code == 0, result.stderr
    assert not warnings_of(result)
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    assert adata.uns["scmoe"]["params"]["batch_key"] == "sample"
    assert adata.uns["neighbors"]["params"]["batch_key"] == "sample"
    # every cell has neighbours in the other batch
    graph = adata.obsp["connectivities"]
    first = (adata.obs["sample"] == "A01").to_numpy()
    assert (graph[first][:, ~first].getnnz(axis=1) > 0).all()
    assert (graph[~first][:, first].getnnz(axis=1) > 0).all()


@pytest.mark.parametrize("similarity", ["tree", "graph", "knn", "threshold"])
def test_similarities(scmoe, plate, similarity):
    result = scmoe(plate, "--similarity", similarity)
    assert result.exit_code == 0, result.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    used = adata.uns["scmoe"]["params"]["similarity"]["name"]
    assert used.lower() == {"tree": "densitytree"}.get(similarity, similarity)


def test_cofactor(scmoe, plate):
    assert scmoe(plate, "--cofactor", "10").exit_code == 0
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    assert set(adata.uns["arcsinh"]["X"]["cofactor"]) == {10.0}


def test_quiet(scmoe, plate):
    result = scmoe(plate, "--quiet")
    assert result.exit_code == 0
    assert result.output == ""


# ---- h5ad -------------------------------------------------------------------------------


def test_h5ad_is_taken_as_it_is(scmoe, h5ad, blobs):
    result = scmoe(h5ad)
    assert result.exit_code == 0, result.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    np.testing.assert_array_equal(adata.X, blobs.X)
    assert "population" in adata.obs


def test_raw_h5ad_from_fcs_is_transformed_once(scmoe, plate):
    raw = read_fcs(plate)
    raw.write_h5ad(scmoe.home / "raw.h5ad")
    assert scmoe("raw.h5ad", output="one").exit_code == 0
    assert scmoe("one/cells.h5ad", "--key", "again", output="two").exit_code == 0
    one = ad.read_h5ad(scmoe.home / "one" / "cells.h5ad")
    two = ad.read_h5ad(scmoe.home / "two" / "cells.h5ad")
    np.testing.assert_array_equal(one[:, SURFACE].X, np.arcsinh(raw[:, SURFACE].X / 5))
    np.testing.assert_array_equal(one.X, two.X)
    # the first clustering stays beside the second
    assert list(two.obs["scmoe"]) == list(one.obs["scmoe"])
    assert "again" in two.obs


def followed(path):
    """The cells of a folder, and what their clusters follow."""
    adata = ad.read_h5ad(path / "cells.h5ad")
    return adata, adata.uns["scmoe"]["params"]["similarity"]["name"]


@pytest.mark.slow
def test_own_graph_is_kept_unless_markers_are_chosen(scmoe, linked):
    linked.obsm["X_pca"] = linked.X[:, :3].copy()
    params = {"n_neighbors": 10, "use_rep": "X_pca"}
    linked.uns["neighbors"] = {"connectivities_key": "connectivities", "params": params}
    linked.write_h5ad(scmoe.home / "linked.h5ad")
    assert scmoe("linked.h5ad", output="own").exit_code == 0
    own, similarity = followed(scmoe.home / "own")
    assert similarity == "CoAssociation"
    assert (own.obsp["connectivities"] != linked.obsp["connectivities"]).nnz == 0
    assert "that of the file" in (scmoe.home / "own" / "report.html").read_text()
    result = scmoe("linked.h5ad", "--exclude", "CD45", output="new", maps=True)
    assert result.exit_code == 0, result.stderr
    new, similarity = followed(scmoe.home / "new")
    assert similarity == "DensityTree"
    assert new.uns["scmoe"]["params"]["neighbors"] == "not used"


@pytest.mark.slow
def test_graph_of_the_markers_is_kept(scmoe, linked):
    params = {"n_neighbors": 10, "use_rep": "X", "method": "umap"}
    linked.uns["neighbors"] = {"connectivities_key": "connectivities", "params": params}
    linked.write_h5ad(scmoe.home / "linked.h5ad")
    assert scmoe("linked.h5ad", maps=True).exit_code == 0
    adata, similarity = followed(scmoe.home / "out")
    assert similarity == "DensityTree"
    assert (adata.obsp["connectivities"] != linked.obsp["connectivities"]).nnz == 0


@pytest.mark.slow
def test_a_graph_is_built_where_it_is_looked_at(scmoe, plate, monkeypatch):
    built = []

    def add_graph(adata, **kwargs):
        built.append("scmoe" in adata.obs)
        add(adata, **kwargs)

    add = _run.add_graph
    monkeypatch.setattr(_run, "add_graph", add_graph)
    result = scmoe(plate, "--seed", "7")
    assert result.exit_code == 0, result.stderr
    assert built == []
    adata, similarity = followed(scmoe.home / "out")
    assert similarity == "DensityTree"
    assert adata.uns["scmoe"]["params"]["similarity"]["random_state"] == 7
    told = Tree.from_record(adata.uns["scmoe"]["tree"]).n_clusters
    assert f"scmoe: density tree: {told} population" in result.stderr
    # before the clustering, once, and not for the map
    words = ["--similarity", "coassociation"]
    assert scmoe(plate, *words, maps=True, output="graph").exit_code == 0
    assert built == [False]
    assert "built by this run" in (scmoe.home / "graph" / "report.html").read_text()


def test_layer(scmoe, blobs):
    blobs.layers["scaled"] = blobs.X + 1
    blobs.X = np.full_like(blobs.X, np.nan)
    blobs.write_h5ad(scmoe.home / "a.h5ad")
    result = scmoe("a.h5ad", "--layer", "scaled")
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(scmoe.home / "out" / "clusters.csv")
    assert table["CD3"].min() >= 1


def test_several_h5ad(scmoe, blobs):
    blobs[:300].copy().write_h5ad(scmoe.home / "a1.h5ad")
    blobs[300:].copy().write_h5ad(scmoe.home / "a2.h5ad")
    result = scmoe("a*.h5ad")
    assert result.exit_code == 0, result.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    np.testing.assert_array_equal(adata.X, blobs.X)
    assert list(adata.obs["sample"].value_counts(sort=False).items()) == [("a1", 300), ("a2", 300)]
    assert adata.var["marker"].tolist() == blobs.var["marker"].tolist()


def test_several_h5ad_of_different_markers(scmoe, blobs, error_of):
    blobs[:300].copy().write_h5ad(scmoe.home / "a.h5ad")
    blobs[300:, 1:].copy().write_h5ad(scmoe.home / "b.h5ad")
    exact = scmoe("a.h5ad", "b.h5ad", "--join", "exact")
    assert "do not have the same markers: 'CD3'" in error_of(exact)
    outer = scmoe("a.h5ad", "b.h5ad", "--join", "outer")
    assert outer.exit_code == 0, outer.stderr
    assert "warning: Not clustered by 'CD3', which not every file has." in outer.stderr
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    assert adata.n_vars == 8
    assert "CD3" not in adata.uns["scmoe"]["markers"]


def test_h5ad_transformed_and_not(scmoe, plate, error_of):
    raw = read_fcs(plate)
    raw.write_h5ad(scmoe.home / "raw.h5ad")
    raw.uns["arcsinh"] = {"X": {"channels": ["CD3"], "cofactor": [5.0], "source": "X"}}
    raw.write_h5ad(scmoe.home / "done.h5ad")
    result = scmoe("raw.h5ad", "done.h5ad")
    assert "transform both or none" in error_of(result)


def test_channels_that_are_no_markers_by_their_names(scmoe, h5ad, blobs):
    del blobs.var["kind"]
    blobs.var_names = ["DNA1", *blobs.var_names[1:]]
    blobs.write_h5ad(h5ad)
    result = scmoe(h5ad)
    assert "By their names 'DNA1' are no markers; --exclude leaves them out." in result.stderr


def test_files_that_are_transformed(scmoe, h5ad, blobs):
    blobs.write_h5ad(h5ad)
    result = scmoe(h5ad, "--cofactor", "5")
    assert "no marker goes beyond 20" in result.stderr
    assert "--no-transform leaves values as they are" in result.stderr


def test_values_that_look_raw(scmoe, h5ad, blobs):
    blobs.X = blobs.X * 100
    blobs.write_h5ad(h5ad)
    result = scmoe(h5ad)
    assert result.exit_code == 0
    assert "scmoe: warning: Values go up to" in result.stderr
    page = (scmoe.home / "out" / "report.html").read_text()
    assert "as those that were never transformed do" in page


# ---- spillover --------------------------------------------------------------------------


@pytest.fixture
def spilled(plate, scmoe):
    """Fluorescence with a spillover matrix, as h5ad."""
    adata = read_fcs(plate)
    adata.var["kind"] = pd.Categorical(["fluor"] * 10 + ["other"] * 6)
    channels = list(adata.var["channel"][:2])
    matrix = pd.DataFrame([[1.0, 0.25], [0.0, 1.0]], index=channels, columns=channels)
    for record in adata.uns["fcs"].values():
        record["spillover"] = matrix
    adata.write_h5ad(scmoe.home / "spilled.h5ad")
    return adata


def test_spillover_is_told(scmoe, spilled):
    result = scmoe("spilled.h5ad")
    assert result.exit_code == 0
    told = "2 of 2 samples have a spillover matrix, which was not applied"
    assert f"scmoe: warning: {told}" in result.stderr
    assert told in (scmoe.home / "out" / "report.html").read_text()
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    expected = np.arcsinh(spilled.X[:, 1] / 150)
    np.testing.assert_array_equal(adata.X[:, 1], expected)


def test_spillover_is_applied(scmoe, spilled):
    result = scmoe("spilled.h5ad", "--compensate")
    assert result.exit_code == 0, result.stderr
    assert not warnings_of(result)
    adata = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad")
    second = spilled.X[:, 1] - 0.25 * spilled.X[:, 0]
    np.testing.assert_allclose(adata.X[:, 1], np.arcsinh(second / 150), rtol=1e-4, atol=1e-5)


# ---- what can go wrong ------------------------------------------------------------------


def empty(home, plate):
    (home / "empty.fcs").write_bytes(b"")
    return ["empty.fcs"]


def no_fcs(home, plate):
    (home / "text.fcs").write_text("this is not an FCS file at all" * 10)
    return ["text.fcs"]


def cut(home, plate):
    (home / "cut.fcs").write_bytes((plate / "A01.fcs").read_bytes()[:-5000])
    return ["cut.fcs"]


def empty_folder(home, plate):
    (home / "none").mkdir()
    return ["none"]


def no_h5ad(home, plate):
    (home / "bad.h5ad").write_text("no HDF5")
    return ["bad.h5ad"]


def other_hdf5(home, plate):
    import h5py

    with h5py.File(home / "bad.h5ad", "w") as file:
        file["data"] = [1, 2, 3]
    return ["bad.h5ad"]


def counts(home, plate):
    ad.AnnData(np.ones((20, 3), dtype=np.int64)).write_h5ad(home / "counts.h5ad")
    return ["counts.h5ad"]


def hole(home, plate):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[3, 1] = np.nan
    ad.AnnData(x).write_h5ad(home / "hole.h5ad")
    return ["hole.h5ad"]


def constant(home, plate):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[:, 2] = 1
    ad.AnnData(x).write_h5ad(home / "flat.h5ad")
    return ["flat.h5ad"]


def few(home, plate):
    ad.AnnData(np.eye(4, 3, dtype=np.float32)).write_h5ad(home / "few.h5ad")
    return ["few.h5ad"]


def pipe(path):
    os.mkfifo(path)
    return path


def repaired(home, plate):
    raw = bytearray((plate / "A01.fcs").read_bytes())
    end = int(raw[34:42])
    raw[34:42] = f"{end + 1:>8}".encode()
    (home / "repaired.fcs").write_bytes(raw)
    return []


BAD = [
    (lambda home, plate: ["gone.fcs"], "gone.fcs"),
    (lambda home, plate: ["gone*.fcs"], "gone*.fcs"),
    (lambda home, plate: ["gone.h5ad"], "gone.h5ad: no such file"),
    (lambda home, plate: [plate, plate], "given more than once"),
    (empty, "empty.fcs"),
    (no_fcs, "text.fcs"),
    (cut, "cut.fcs"),
    (empty_folder, "the folder holds no file"),
    (no_h5ad, "bad.h5ad: cannot be read as h5ad"),
    (other_hdf5, "bad.h5ad"),
    (counts, "int64"),
    (hole, "NaN or infinite values in '1'"),
    (constant, "Constant in all cells: '2'"),
    (few, "fewer cells (4) than clusters (5)"),
    (lambda home, plate: [plate, "--markers", "CD3,CD99"], "no marker 'CD99'. "),
    (
        lambda home, plate: [plate, "--markers", "cd3"],
        "no marker 'cd3'. Did you mean 'CD3'? There",
    ),
    (lambda home, plate: [plate, "--markers", "m.txt"], "no marker 'm.txt', and no file 'm.txt'"),
    (lambda home, plate: [plate, "--markers", ",".join(["CD3" * 9] * 99)], "there is no marker"),
    (lambda home, plate: [pipe(home / "x.h5ad")], "x.h5ad is no regular file"),
    (lambda home, plate: [pipe(home / "x.fcs")], "this is not a regular file"),
    (
        lambda home, plate: [home, "--strict", *repaired(home, plate)],
        "(refused because of --strict)",
    ),
    (lambda home, plate: [plate, "--exclude", "CD99"], "no marker 'CD99'"),
    (lambda home, plate: [plate, "--markers", "CD3", "--exclude", "CD3"], "No marker is left"),
    (lambda home, plate: [plate, "--batch-key", "day"], "the batches 'day'"),
    (lambda home, plate: [plate, "--compensate"], "spillover"),
    (lambda home, plate: [*few(home, plate), "--layer", "raw"], "no layer 'raw'"),
]


@pytest.mark.parametrize(("make", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input(scmoe, plate, make, told, error_of):
    words = make(scmoe.home, plate)
    before = sorted(scmoe.home.iterdir())
    result = scmoe(*words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert told in error_of(result)
    assert sorted(scmoe.home.iterdir()) == before


def fails_with(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: Permission denied"),
        (MemoryError(), 1, "out of memory"),
        (KeyError("no such\nthing"), 1, "no such thing"),
        (KeyError("k"), 1, "unexpected KeyError: 'k'"),
        (TypeError("oops"), 1, "unexpected TypeError: oops"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_failure_at_the_end(scmoe, plate, monkeypatch, error_of, error, status, told):
    monkeypatch.setattr(ad.AnnData, "write_h5ad", fails_with(error))
    result = scmoe(plate, output="new/out")
    assert result.exit_code == status
    assert told in error_of(result)
    if isinstance(error, KeyboardInterrupt):
        assert list(scmoe.home.iterdir()) == []
    else:
        # what was trained is not lost
        assert "these results are written: model/model.json" in error_of(result)
        assert sorted(os.listdir(scmoe.home / "new" / "out")) == ["model", "run.json"]


def test_debug_shows_where(scmoe, plate, monkeypatch):
    monkeypatch.setattr(tl, "cluster", fails_with(TypeError("oops")))
    result = scmoe(plate, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("scmoe: error: unexpected TypeError: oops")


def test_folder_in_use(scmoe, plate, error_of):
    out = scmoe.home / "out"
    out.mkdir()
    assert scmoe(plate).exit_code == 0  # an empty one is as good as none
    page = (out / "report.html").read_bytes()
    assert "is not empty and has the results of an earlier run" in error_of(scmoe(plate))
    assert (out / "report.html").read_bytes() == page
    assert "lies in --output" in error_of(scmoe("out/cells.h5ad", "--overwrite"))
    assert scmoe(plate, "--overwrite", "--key", "other").exit_code == 0
    assert "other" in ad.read_h5ad(out / "cells.h5ad").obs
    (out / "notes.txt").write_text("mine")
    assert "has 'notes.txt'" in error_of(scmoe(plate, "--overwrite"))
    assert (out / "notes.txt").exists()
    assert list(scmoe.home.iterdir()) == [out]


def test_failure_leaves_the_old_folder(scmoe, plate, monkeypatch):
    assert scmoe(plate).exit_code == 0
    page = (scmoe.home / "out" / "report.html").read_bytes()
    monkeypatch.setattr(ad.AnnData, "write_h5ad", fails_with(OSError("no")))
    assert scmoe(plate, "--overwrite").exit_code == 1
    assert (scmoe.home / "out" / "report.html").read_bytes() == page
    assert [p.name for p in scmoe.home.iterdir()] == ["out"]


def test_repairs_are_warnings(scmoe, plate, error_of):
    from scmoe.io import FCSRepairWarning

    raw = bytearray((plate / "A01.fcs").read_bytes())
    # HEADER says that DATA ends one byte later than it does
    raw[34:42] = f"{int(raw[34:42]) + 1:>8}".encode()
    (scmoe.home / "late.fcs").write_bytes(raw)
    with pytest.warns(FCSRepairWarning):
        read_fcs(scmoe.home / "late.fcs")
    result = scmoe("late.fcs")
    assert result.exit_code == 0
    assert "scmoe: warning: 1 of 1 files disagree with the FCS standard" in result.stderr
    page = (scmoe.home / "out" / "report.html").read_text()
    # harmless: a line among what was read, not in the box
    assert "the one that $TOT events fit" in page
    box = page.partition("Please look at")[2][:2000]
    assert "FCS standard" not in box
    strict = scmoe("late.fcs", "--strict", output="strict")
    assert "late.fcs" in error_of(strict)
    assert not (scmoe.home / "strict").exists()


def test_fcs_of_different_markers(scmoe, plate, error_of):
    # the second well has another name for CD7
    (scmoe.home / "A01.fcs").write_bytes((plate / "A01.fcs").read_bytes())
    second = (plate / "A02.fcs").read_bytes()
    assert second.count(b"\x0cCD7\x0c") == 1
    (scmoe.home / "A02.fcs").write_bytes(second.replace(b"\x0cCD7\x0c", b"\x0cCD8\x0c"))
    files = ["A01.fcs", "A02.fcs"]
    assert "CD7" in error_of(scmoe(*files, "--join", "exact"))
    for join, n_vars in (("inner", 15), ("outer", 17)):
        result = scmoe(*files, "--join", join, output=join)
        assert result.exit_code == 0, result.stderr
        assert "scmoe: warning: " in result.stderr
        adata = ad.read_h5ad(scmoe.home / join / "cells.h5ad")
        assert adata.n_vars == n_vars
        assert list(adata.uns["scmoe"]["markers"]) == SURFACE[:-1]


def test_cells_that_do_not_fit_on_the_disk(scmoe, plate, monkeypatch, error_of):
    """HDF5 would end the process; the model is kept."""
    usage = type("", (), {"free": 2**20})()
    monkeypatch.setattr("scmoe._core.atomic.shutil.disk_usage", lambda path: usage)
    told = error_of(scmoe(plate))
    assert "cells.h5ad: No space left on device: " in told
    assert "; these results are written: model/model.json" in told
    assert not (scmoe.home / "out" / "cells.h5ad").exists()
    assert (scmoe.home / "out" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('was read; .uns["fcs"][sample]["repairs"] tells how.', "was read; the report tells how."),
        ('x is not shared; join="outer" keeps all', "x is not shared; --join outer keeps all"),
        ("no matrix; pass one with `spillover=`", "no matrix; pass one with --spillover"),
        (
            ".X was compensated before, see .uns['compensated']; nothing was done.",
            "X was compensated before; nothing was done.",
        ),
        (
            "Did not find the batches 'day' in `.obs`, which has ['sample', 'event'].",
            "Did not find the batches 'day' among the columns ['sample', 'event'].",
        ),
        ("For sample 'a' .uns['fcs'] has no matrix", "For sample 'a' the file has no matrix"),
        ("`adata.layers['raw']` holds NaN", "the layer 'raw' holds NaN"),
        ("`.obs['day']` is missing", "the column 'day' is missing"),
        ('`dataset="all"` reads each', "--dataset all reads each"),
        ("transform them first (`scmoe.pp.arcsinh`)", "transform them first (--transform)"),
    ],
)
def test_messages_speak_of_options(said, told):
    assert in_options(said) == told


def test_options_of_the_reader(scmoe, plate, monkeypatch):
    files = ["A01.fcs", "A02.fcs"]
    for name in files:
        (scmoe.home / name).write_bytes((plate / name).read_bytes())
    second = scmoe.home / "A02.fcs"
    second.write_bytes(second.read_bytes().replace(b"\x0cCD7\x0c", b"\x0cCD8\x0c"))
    seen = []
    monkeypatch.setattr("scmoe.cli._run.run", lambda settings, *_: seen.append(settings))
    words = ["--by", "channel", "--dataset", "all", "--offsets", "header"]
    assert scmoe(*files, *words).exit_code == 0
    assert (seen[0].by, seen[0].dataset, seen[0].offsets) == ("channel", "all", "header")
    with pytest.warns(UserWarning, match="CD7 for CD8"):
        adata = read_cells(find_cells(seen[0], progress=False), seen[0])
    assert adata.n_vars == 16
    assert {record["offsets"] for record in adata.uns["fcs"].values()} == {"header"}


# ---- FCS with the clusters --------------------------------------------------------------


def test_fcs_files(scmoe, plate):
    result = scmoe(plate, fcs=True)
    assert result.exit_code == 0, result.stderr
    assert not warnings_of(result)
    out = scmoe.home / "out"
    assert sorted(p.name for p in (out / "fcs").iterdir()) == ["A01.fcs", "A02.fcs"]
    adata, raw, written = ad.read_h5ad(out / "cells.h5ad"), read_fcs(plate), read_fcs(out / "fcs")
    np.testing.assert_array_equal(written[:, raw.var_names].X, raw.X)
    codes = written[:, "scmoe"].X.ravel().astype(int).astype(str)
    assert list(codes) == list(adata.obs["scmoe"])
    proba = adata.obsm["scmoe_proba"].max(axis=1)
    np.testing.assert_array_equal(written[:, "scmoe_proba"].X.ravel(), proba)
    assert "Cytobank" in (out / "report.html").read_text()


def test_fcs_that_cannot_be_written_costs_nothing_else(scmoe, plate, monkeypatch):
    monkeypatch.setattr(io, "write_fcs", fails_with(ValueError("A01.fcs has changed.")))
    result = scmoe(plate, fcs=True)
    assert result.exit_code == 0
    told = "No FCS files were written. A01.fcs has changed."
    assert f"scmoe: warning: {told}\n" in result.stderr
    page = (scmoe.home / "out" / "report.html").read_text()
    assert told in page
    assert "Cytobank" not in page


def test_disk_that_is_full_while_fcs_is_written(scmoe, plate, monkeypatch, error_of):
    full = OSError(errno.ENOSPC, "No space left on device", "A01.fcs")
    monkeypatch.setattr(io, "write_fcs", fails_with(full))
    told = error_of(scmoe(plate, fcs=True))
    assert "A01.fcs: No space left on device; these results are written: cells.h5ad" in told
    assert ad.read_h5ad(scmoe.home / "out" / "cells.h5ad").obs["scmoe"].notna().all()


def test_files_of_different_transforms(scmoe, error_of, blobs, tmp_path):
    for name, cofactor in (("a", 5), ("b", 150)):
        adata = as_intensities(blobs.copy())
        pp.arcsinh(adata, cofactor=cofactor)
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    result = scmoe(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    assert result.exit_code == 1
    assert "b.h5ad has another arcsinh than" in error_of(result)
    assert list(scmoe.home.iterdir()) == []


def test_no_training_cell_is_kept_where_none_may_be(scmoe, plate):
    assert scmoe(plate, "--no-landmarks").exit_code == 0
    record = ad.read_h5ad(scmoe.home / "out" / "cells.h5ad").uns["scmoe"]["model"]
    assert not record["weights"]["outliers.landmarks"].any()
