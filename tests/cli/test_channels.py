"""The table of channels, and that a run uses what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from scmoe.cli import main
from scmoe.cli._cells import find_cells, read_cells
from scmoe.cli._channels import choose_markers
from scmoe.cli._console import Console
from scmoe.cli._settings import Settings
from scmoe.io import read_fcs

RUN = ["CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR"]


def table(*arguments):
    """Rows by name: channel, kind, used, why."""
    result = CliRunner().invoke(main, ["channels", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    head, *rows = result.stdout.split("\n\n")[0].splitlines()
    starts = [head.index(word) for word in ("channel", "marker", "kind", "used", "why")]
    cells = [
        [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        for row in rows
    ]
    return {marker or channel: [channel, *row] for channel, marker, *row in cells}


def used(rows):
    return [name for name, (_, _, yes, _) in rows.items() if yes == "yes"]


@pytest.fixture
def two(plate, tmp_path):
    """Two wells, of which the second has another name for CD7."""
    for name in ("A01.fcs", "A02.fcs"):
        data = (plate / name).read_bytes()
        data = data.replace(b"\x0cCD7\x0c", b"\x0cCD8\x0c") if name == "A02.fcs" else data
        (tmp_path / name).write_bytes(data)
    return [tmp_path / "A01.fcs", tmp_path / "A02.fcs"]


def test_kinds_and_options(plate):
    rows = table(plate)
    assert used(rows) == [*RUN, "CD7"]
    assert rows["CD3"] == ["Er170Di", "mass", "yes", "metal"]
    assert rows["Time"] == ["Time", "time", "no", "time"]
    assert rows["DNA1"] == ["Ir191Di", "other", "no", "DNA stain"]
    rows = table(plate, "--exclude", "CD7")
    assert used(rows) == RUN
    assert rows["CD7"][3] == "--exclude"
    assert used(table(plate, "--markers", "Time,CD3")) == ["CD3", "Time"]


@pytest.mark.parametrize("h5ad", [False, True])
@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.filterwarnings("ignore:Markers that", "ignore:Values go up to")
def test_a_run_uses_what_the_table_says(two, tmp_path, join, h5ad):
    files = two
    if h5ad:
        files = [path.with_suffix(".h5ad") for path in two]
        for path, copy in zip(two, files, strict=True):
            read_fcs(path).write_h5ad(copy)
    rows = table(*files, "--join", join)
    assert {"CD7", "CD8"} <= set(rows)
    assert rows["CD7"][2:] == ["no", "not every file has it"]
    settings = Settings(files=tuple(map(str, files)), output=tmp_path / "out", join=join)
    adata = read_cells(find_cells(settings, progress=False), settings)
    chosen = choose_markers(adata, settings, Console(quiet=1, debug=0))
    assert set(chosen) == set(used(rows)) == set(RUN)


def test_errors_are_those_of_a_run(plate, error_of):
    def fails(*words):
        result = CliRunner().invoke(main, ["channels", *map(str, words)])
        assert result.exit_code == 1
        return error_of(result)

    assert "there is no marker 'cd3'" in fails(plate, "--markers", "cd3")
    assert "nowhere.fcs" in fails("nowhere.fcs")
    result = CliRunner().invoke(main, ["channels", "a.fcs", "b.h5ad"])
    assert "FCS or h5ad, not both" in result.stderr


def test_cells_without_kinds(blobs, tmp_path):
    del blobs.var
    blobs.write_h5ad(tmp_path / "x.h5ad")
    rows = table(tmp_path / "x.h5ad")
    assert used(rows) == list(blobs.var_names)
    assert rows["CD3"] == ["CD3", "", "yes", ""]


def test_loads_no_torch(plate):
    code = (
        "import json, sys\n"
        "from scmoe.cli import main\n"
        f"main(['channels', {str(plate)!r}], standalone_mode=False)\n"
        "print(json.dumps([m for m in ('torch', 'scvi', 'scanpy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
