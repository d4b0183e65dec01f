"""What holds for all public functions that take an AnnData."""

from __future__ import annotations

import hashlib
import inspect
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scmoe
from scmoe._core.cells import layer_values
from scmoe._core.compat import rep_key
from scmoe.tl._values import working_copy

FIRST = {"adata", "query", "real"}
"""Names of the first argument, where it is cells."""


def public() -> dict[str, object]:
    """Functions of the package that take cells, and methods of models that do."""
    found = {}
    for part in ("datasets", "get", "io", "metrics", "pl", "pp", "similarity", "tl"):
        module = getattr(scmoe, part)
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and FIRST & set(
                list(inspect.signature(function).parameters)[:1]
            ):
                found[f"{part}.{name}"] = function
    for name, method in inspect.getmembers(scmoe.model.MoESimVAE, callable):
        ours = str(getattr(method, "__module__", "")).startswith("scmoe") and not name.startswith(
            "_"
        )
        if ours and "adata" in inspect.signature(method).parameters:
            found[f"model.{name}"] = name
    return found


ARGUMENTS = {
    "metrics.generation_report": lambda cells: (cells, cells),
    "pl.generated": lambda cells: (cells, cells),
    "pp.marker_prior": lambda cells: (cells, {"a": "CD3", "b": "CD19"}),
    "tl.generate": lambda cells: (cells, 5),
    "tl.assign": lambda cells: (cells, cells),
}

READS = ["get.cluster_proba", "pl.n_clusters", "pl.prior", "tl.generate"]
"""Some that need no values, and so work."""


@pytest.fixture(scope="module")
def trained(linked_once, tmp_path_factory):
    """A file of clustered cells, the cells themselves, and a model."""
    adata = linked_once
    adata.obs["sample"] = "a"
    adata.obsm["X_umap"] = adata.X[:, :2].copy()
    adata.uns["fcs"] = {
        "a": {"spillover": pd.DataFrame(np.eye(2), index=["Ch0", "Ch1"], columns=["Ch0", "Ch1"])}
    }
    scmoe.pp.marker_prior(adata, {"T": "CD3", "B": "CD19"})
    folder = tmp_path_factory.mktemp("trained")
    scmoe.tl.cluster(
        adata,
        n_clusters=4,
        train_kwargs={"max_epochs": 1},
        progress=False,
        save_model=folder / "model",
    )
    adata.write_h5ad(folder / "cells.h5ad")
    return folder, adata, scmoe.model.MoESimVAE.load(str(folder / "model"), adata)


def call(name: str, cells: ad.AnnData, folder, model):
    """Call a function with little more than the cells."""
    function = public()[name]
    if not isinstance(function, str):
        given = ARGUMENTS.get(name, lambda cells: (cells,))(cells)
        if name == "io.write_fcs":
            given = (cells, folder / "out")
        return function(*given, **({"show": False} if name.startswith("pl.") else {}))
    if function == "load":
        return scmoe.model.MoESimVAE.load(str(folder / "model"), cells)
    method = getattr(model, function)
    return method(cells) if "setup" in function else method(adata=cells)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("name", public())
def test_cells_in_a_file(trained, tmp_path, name, mode):
    folder, adata, model = trained
    shutil.copytree(folder / "model", tmp_path / "model")
    path = tmp_path / "cells.h5ad"
    shutil.copy(folder / "cells.h5ad", path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    cells = ad.read_h5ad(path, backed=mode)
    slots = {slot: set(getattr(cells, slot)) for slot in ("obs", "obsm", "uns", "layers")}
    failed = None
    try:
        found = call(name, cells, tmp_path, model)
    except (ValueError, KeyError, TypeError) as error:
        failed = error
    finally:
        assert {slot: set(getattr(cells, slot)) for slot in slots} == slots
        cells.file.close()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert not (tmp_path / "out").exists()
    if failed is None:
        expected = call(name, adata.copy(), tmp_path, model)
        assert type(found) is type(expected)
        if isinstance(found, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        elif isinstance(found, ad.AnnData):
            np.testing.assert_array_equal(found.X, expected.X)
    elif name in READS and "to_memory" in str(failed):
        raise failed
    elif "to_memory" not in str(failed):
        # what is not there is said of the same cells in memory too
        with pytest.raises(type(failed)):
            call(name, adata.copy(), tmp_path, model)


def test_values_that_are_not_in_memory(blobs):
    class Lazy:
        shape, dtype = blobs.shape, blobs.X.dtype

    class Cells(ad.AnnData):
        isbacked, obs, layers, X = False, blobs.obs, {}, Lazy()

    with pytest.raises(ValueError, match=r"\.X is a .*Lazy; pass `adata.to_memory\(\)`"):
        layer_values(object.__new__(Cells), None)
    Cells.obs = Lazy()
    with pytest.raises(ValueError, match="read lazily"):
        layer_values(object.__new__(Cells), None)


class Layers(dict):
    """Layers as anndata 0.13 has them, with ``.X`` among them."""

    def __iter__(self):
        return iter([None, *super().keys()])

    def __contains__(self, name):
        return name is None or super().__contains__(name)


def test_layers_that_list_x(blobs, monkeypatch):
    blobs.layers["raw"] = blobs.X
    monkeypatch.setattr(ad.AnnData, "layers", Layers(raw=blobs.X))
    for function in (scmoe.pp.arcsinh, scmoe.tl.cluster, scmoe.pl.markers):
        if function is scmoe.pl.markers:
            blobs.obs["scmoe"] = "0"
        with pytest.raises(KeyError, match=r"Did not find layer 'no'.* holds \['raw'\]"):
            function(blobs, layer="no")


@pytest.mark.parametrize(("written", "asked"), [("X_pca", "pca"), ("pca", "X_pca"), ("b", "b")])
def test_representations_have_two_names(written, asked):
    cells = ad.AnnData(np.zeros((3, 2), np.float32), obsm={written: np.zeros((3, 2))})
    assert rep_key(cells, asked) == written
    assert rep_key(cells, "other") == "other"


def test_a_map_by_its_new_name(blobs):
    blobs.obsm["umap"] = blobs.X[:, :2]
    scmoe.pl.clusters(blobs, color="population", show=False)
    scmoe.similarity.Knn().bind(blobs, blobs.X)
    blobs.obsm["pca"] = blobs.X[:, :3]
    assert working_copy(blobs, None, None, "X_pca").shape == (600, 3)
