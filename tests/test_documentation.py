"""The code that readers copy runs: the blocks of the pages, and the examples of the pictures.

A comment in a page holds what a block needs and readers have, ``<!-- run ... -->``, or says why a
block is left out, ``<!-- not run: why -->``. Blocks of a page share their names.
"""

from __future__ import annotations

import doctest
import functools
import glob
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from click.testing import CliRunner
from scvi.train import Trainer

import scmoe
from scmoe.cli import main

pytestmark = pytest.mark.slow

TOP = Path(__file__).parent.parent
PAGES = ["README.md", "docs/user-guide.md", "docs/similarities.md"]
DOCUMENTED = [
    function
    for module in (scmoe.tl, scmoe.pl)
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name))
]
PIECES = re.compile(
    r"<!-- run\n(?P<hidden>.*?)-->|(?P<left_out><!-- not run: .*? -->\n)?"
    r"^```(?P<language>python|bash)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(autouse=True)
def _short(tmp_path, monkeypatch):
    """Trainings and searches take few steps, and files go into a folder of the test."""
    monkeypatch.chdir(tmp_path)
    start = lightning.Trainer.__init__

    @functools.wraps(start)  # the arguments of a training are compared with its signature
    def short(self, *args, max_epochs, **kwargs):
        # an autoencoder has to learn something, or no latent size can be estimated
        most = 20 if isinstance(self, Trainer) else 50
        start(self, *args, max_epochs=min(max_epochs, most), **kwargs)

    monkeypatch.setattr(lightning.Trainer, "__init__", short)
    monkeypatch.setattr("scmoe._estimate._stability.RESOLUTIONS", (0.2, 0.5, 1.0, 2.0))


def in_shell(code: str) -> None:
    """Run what is a command of scmoe; of the others a make is tested by whoever makes."""
    for line in code.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "scmoe":
            words = [found for word in words for found in sorted(glob.glob(word)) or [word]]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run(page):
    scmoe.datasets.simulate_plate("plate/", n_wells=2, n_cells=200)
    names = {}
    text = (TOP / page).read_text(encoding="utf-8")
    for piece in PIECES.finditer(text):
        line = text.count("\n", 0, piece.start())
        code = piece["hidden"] or piece["code"]
        if piece["language"] == "bash":
            in_shell(code)
        elif not piece["left_out"]:
            # the lines of an error are those of the page
            exec(compile("\n" * (line + 1) + code, page, "exec"), names)


@pytest.fixture(scope="module")
def begun() -> dict[str, dict[str, Any]]:
    """First lines of examples, many of which train alike, and the names that each has left."""
    return {}


@pytest.mark.parametrize(
    "function", DOCUMENTED, ids=lambda f: f"{f.__module__.split('.')[1]}.{f.__name__}"
)
def test_examples_of_a_function_run(function, begun, blobs):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function))
    first, *others = [example.source for example in examples]
    if first not in begun:
        adata, query = blobs[::2].copy(), blobs[1::4].copy()
        sc.pp.neighbors(adata, use_rep="X")
        names = {"sc": sc, "np": np, "scmoe": scmoe}
        begun[first] = names | {"adata": adata, "reference": adata, "query": query}
        exec(compile(first, function.__name__, "exec"), begun[first])
    names = {
        # a model knows the cells that it was set up with, not their copy
        name: value.copy()
        if isinstance(value, AnnData) and "_scvi_uuid" not in value.uns
        else value
        for name, value in begun[first].items()
    }
    for line in others:
        exec(compile(line, function.__name__, "exec"), names)
