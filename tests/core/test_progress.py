"""Bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from scmoe._core import progress
from scmoe.model import MoESimVAE
from scmoe.similarity import CoAssociation


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_line_for_each_stage(capsys):
    assert list(progress.bar(range(3), "counting")) == [0, 1, 2]
    with progress.stage("thinking"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+\.\d", "N", line) for line in lines] == [
        "scmoe: counting (N s)",
        "scmoe: thinking (N s)",
    ]


def test_a_terminal_gets_bars(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress.bar(range(3), "counting")) == [0, 1, 2]
    with progress.stage("thinking"):
        pass
    shown = terminal.getvalue()
    assert "counting: 100%" in shown
    assert "thinking: 00:00" in shown
    assert "scmoe:" not in shown


def test_nothing_is_shown_where_nothing_is_asked_for(capsys):
    assert list(progress.bar(range(3), "counting", progress=False)) == [0, 1, 2]
    with progress.stage("thinking", progress=False):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("progress", [True, False])
def test_a_training_writes_no_bar_into_a_log(linked, capsys, progress):
    MoESimVAE.setup_anndata(linked, similarity=CoAssociation(resolutions=(1.0,)))
    model = MoESimVAE(linked, n_experts=5)
    model.train(max_epochs=1, enable_progress_bar=progress)
    told = capsys.readouterr()
    lines = [line.partition(" (")[0] for line in told.err.splitlines()]
    assert lines == (["scmoe: partitioning the graph", "scmoe: training"] if progress else [])
    assert told.out == ""
