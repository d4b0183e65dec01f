"""Options, exit codes, and the program as it is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from scmoe.cli import main

HEAVY = ["torch", "scvi", "scanpy", "anndata", "pandas", "numpy", "matplotlib", "jinja2"]


def test_help_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from scmoe.cli import main\n"
        "main(['cluster', '--help'], standalone_mode=False)\n"
        f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--n-clusters" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_version():
    result = CliRunner().invoke(main, ["--version"], prog_name="scmoe")
    assert result.stdout == f"scmoe {version('scmoe')}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.fcs"], "Missing option '-o'"),
        (["-o", "out"], "Missing argument 'FILES...'"),
        (["a.fcs", "b.h5ad", "-o", "out"], "FCS or h5ad, not both"),
        (["a.fcs", "-o", "out", "--layer", "raw"], "FCS files have no layers"),
        (["a.h5ad", "-o", "out", "--strict"], "--strict is for FCS"),
        (["a.h5ad", "-o", "out", "--by", "channel"], "--by is for FCS"),
        (["a.h5ad", "-o", "out", "--dataset", "all"], "--dataset is for FCS"),
        (["a.h5ad", "-o", "out", "--offsets", "text"], "--offsets is for FCS"),
        (["a.fcs", "-o", "out", "--dataset", "every"], "'every' is not a valid number or all"),
        (["a.fcs", "-o", "out", "--no-transform", "--cofactor", "5"], "--cofactor"),
        (["a.fcs", "-o", "out", "--cofactor", "0"], "0 is not in the range"),
        (["a.fcs", "-o", "out", "--n-clusters", "1"], "1 is not in the range"),
        (["a.fcs", "-o", "out", "--n-clusters", "many"], "'many' is not a valid number or auto"),
        (["a.fcs", "-o", "out", "--n-latent", "0"], "0 is not in the range"),
        (["a.fcs", "-o", "out", "--model", "vae"], "'vae' is not one of"),
        *[
            (["a.fcs", "-o", "out", "--model", model, *words], f"{words[0]} can't go with")
            for model in ("moe-vae", "cpl-mixvae")
            for words in (
                ["--preset", "cytof"],
                ["--similarity", "graph"],
                ["--batch-key", "sample"],
            )
        ],
        (
            ["a.fcs", "-o", "out", "--model", "cpl-mixvae", "--n-latent", "auto"],
            "nothing estimates the size of its states",
        ),
        (["a.fcs", "-o", "out", "--seed", "-1"], "-1 is not in the range"),
        (["a.fcs", "-o", "out", "--similarity", "cosine"], "'cosine' is not one of"),
        (["a.fcs", "-o", "out", "--key", "a/b"], "a name without '/'"),
        (["a.fcs", "-o", "out", "--markers", " , "], "has no names"),
        (["a.fcs", "-o", "out", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_options(words, told):
    result = CliRunner().invoke(main, ["cluster", *words])
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def arguments(plate, out):
    quick = ["--n-clusters", "5", "--max-epochs", "1", "--no-map", "--no-fcs"]
    return ["cluster", str(plate), "-o", str(out), *quick]


@pytest.mark.slow
def test_as_a_module(plate, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "scmoe", *arguments(plate, out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # what other programs read is the page, and only that
    assert done.stdout == f"{out / 'report.html'}\n"
    lines = done.stderr.splitlines()
    assert all(line.startswith("scmoe: ") for line in lines), done.stderr
    assert "scmoe: clustering" in lines


@pytest.mark.slow
def test_installed_program(tmp_path):
    program = Path(sys.executable).with_name("scmoe")
    if not program.exists():
        pytest.skip("the package is not installed with its program")
    done = subprocess.run(
        [program, "cluster", tmp_path / "none.fcs", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("scmoe: error: ")
    assert "none.fcs" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(plate, tmp_path, number, status):
    long = [*arguments(plate, tmp_path / "out"), "--max-epochs", "100000"]
    # a shell lets what it runs in the background ignore SIGINT, and children inherit that
    ignored = signal.signal(number, signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "scmoe", *long], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(number, ignored)
    try:
        for line in process.stderr:
            if line == "scmoe: clustering\n":
                break
        assert (tmp_path / "out" / "run.json").exists()  # the folder is claimed
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == status
    assert told.splitlines()[-1] == "scmoe: error: interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == []
