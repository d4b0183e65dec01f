"""The demo, at reduced size: what `make demo` promises to write."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import anndata as ad
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "scripts" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_outputs(out: Path) -> dict:
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == {
        "n_cells",
        "n_clusters",
        "weighted_f",
        "mean_f1",
        "seconds_per_stage",
    }
    cells = ad.read_h5ad(out / "cells.h5ad")
    assert cells.n_obs == summary["n_cells"]
    assert cells.obs["scmoe"].nunique() == summary["n_clusters"]
    for name in ("clusters.png", "tree.png", "markers.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    return summary


def test_simulated_plate(demo, tmp_path, capsys):
    demo.run(None, tmp_path, n_cells=400, max_epochs=1)
    summary = check_outputs(tmp_path)
    assert summary["n_cells"] == 1600
    assert 0 < summary["weighted_f"] <= 1
    assert 0 < summary["mean_f1"] <= 1
    printed = capsys.readouterr().out
    assert "CD4 T cells" in printed
    assert "CD3+ (> " in printed


def test_folder_of_gated_files_is_scored(demo, tmp_path, data_dir):
    files = sorted((data_dir / "bodenmiller" / "H05").glob("*hladr*.fcs"))
    plate = tmp_path / "plate"
    plate.mkdir()
    for file in files:
        (plate / file.name).symlink_to(file)
    with pytest.warns(UserWarning, match="."):
        demo.run(plate, tmp_path / "out", n_clusters=5, max_epochs=1)
    assert check_outputs(tmp_path / "out")["weighted_f"] > 0


def test_unreadable_folder_is_one_line(demo, tmp_path, capsys, monkeypatch):
    (tmp_path / "cells.fcs").write_text("marker,value\nCD3,1\n")
    monkeypatch.setattr(
        "sys.argv", ["demo", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert demo.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("demo: ")
    assert "cells.fcs" in error
