"""The command line on a small plate, in this process."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from scmoe.cli import main
from scmoe.datasets import simulate_plate

QUICK = ["--n-clusters", "5", "--max-epochs", "1"]


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """A folder with two FCS files of 150 cells."""
    folder = tmp_path_factory.mktemp("plate")
    simulate_plate(folder, n_wells=2, n_cells=150)
    return folder


@pytest.fixture
def scmoe(tmp_path, monkeypatch):
    """Run ``scmoe cluster`` in an empty folder, by default to ``out`` and without pictures."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def run(*arguments, maps=False, fcs=False, output="out"):
        with monkeypatch.context() as patch:
            if not maps:
                # they take most of the time
                patch.setattr("scmoe.cli._pictures._draw", lambda figure, **_: "data:,")
            return call(*arguments, maps=maps, fcs=fcs, output=output)

    def call(*arguments, maps, fcs, output):
        words = ["cluster", "-o", output, *QUICK]
        words += [] if maps else ["--no-map"]
        words += [] if fcs else ["--no-fcs"]
        # what comes last holds
        return CliRunner().invoke(main, [*words, *map(str, arguments)])

    run.home = home
    return run


def last_line(result):
    """The only line that tells of an error."""
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("scmoe: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    return errors[0].removeprefix("scmoe: error: ")


@pytest.fixture
def error_of():
    """See :func:`last_line`."""
    return last_line
