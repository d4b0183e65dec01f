"""``import scmoe`` is quick: what is heavy loads when it is first used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import scmoe

HEAVY = ["torch", "scvi", "scanpy", "lightning", "umap", "sklearn", "matplotlib"]


def python(code):
    """Standard output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_at_import():
    code = f"import json, sys, scmoe; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    assert json.loads(python(code)) == []


@pytest.mark.slow
def test_using_one_part_does_not_load_the_model():
    code = "import sys, scmoe; scmoe.io.read_fcs; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_the_face_loads_without_what_is_heavy():
    """It is there at once; what is heavy waits for the first clustering, or figure.

    anndata itself loads numba where dask is installed.
    """
    unneeded = [*HEAVY, "numba", "pynndescent", "dask", "distributed"]
    code = f"""
import json, sys, anndata
before = set(sys.modules)
import scmoe.get, scmoe.io, scmoe.pp, scmoe.similarity, scmoe.tl
new = set(sys.modules) - before
print(json.dumps([m for m in {unneeded} if m in new]))
"""
    assert json.loads(python(code)) == []


@pytest.mark.slow
def test_nothing_compiles_from_files_to_clusters(tmp_path):
    """Clusters, their transfer, new cells, a map of them and the command line."""
    code = f"""
import sys, scmoe
from scmoe.cli import main
folder, out = {str(tmp_path / "plate")!r}, {str(tmp_path / "out")!r}
scmoe.datasets.simulate_plate(folder, n_wells=2, n_cells=150)
adata = scmoe.io.read_fcs(folder)
scmoe.pp.arcsinh(adata, 5)
other = adata.copy()
quick = {{"n_clusters": 3, "train_kwargs": {{"max_epochs": 1}}, "progress": False}}
scmoe.tl.cluster(adata, **quick, similarity=scmoe.similarity.CoAssociation())
scmoe.tl.assign(other, adata)
scmoe.tl.generate(adata, 10)
scmoe.pl.clusters(adata, show=False)
main(["cluster", folder, "-o", out, "--max-epochs", "1", "--no-fcs"], standalone_mode=False)
print({{"umap", "pynndescent"}} & set(sys.modules))
"""
    assert python(code).splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", scmoe.__all__)
def test_every_subpackage_resolves(name):
    package = getattr(scmoe, name)
    assert package is importlib.import_module(f"scmoe.{name}")
    for public in package.__all__:
        assert hasattr(package, public)


def test_the_whole_house_is_listed():
    expected = {"datasets", "get", "io", "metrics", "model", "pl", "pp", "similarity", "tl"}
    assert expected <= set(scmoe.__all__)
    assert expected <= set(dir(scmoe))


def test_unknown_names():
    with pytest.raises(AttributeError, match="nothing"):
        scmoe.nothing  # noqa: B018


def test_version():
    from importlib.metadata import version

    assert scmoe.__version__ == version("scmoe")
