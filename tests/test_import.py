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


def test_using_one_part_does_not_load_the_model():
    code = "import sys, scmoe; scmoe.io.read_fcs; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_tl_loads_without_torch():
    # the face of the package is there at once; torch waits for the first clustering
    code = "import sys, scmoe; scmoe.get, scmoe.pp.arcsinh; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_what_compiles_waits_for_a_graph_or_a_map():
    code = "import sys, scmoe.cli._run; print({'umap', 'pynndescent'} & set(sys.modules))"
    assert python(code).strip() == "set()"


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
