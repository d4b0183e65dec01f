"""A folder that is claimed before the work and filled file by file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from scmoe._core import atomic
from scmoe.cli._output import output_folder


def write(path, text="new", *, overwrite=False, settings=None, fails=None, name="report.html"):
    with output_folder(path, overwrite=overwrite, settings=settings) as output:
        output.put(name, lambda place: place.write_text(text))
        if fails is not None:
            raise fails


def listing(path):
    return sorted(os.listdir(path))


def test_files_appear_one_by_one(tmp_path):
    path = tmp_path / "a" / "b" / "out"
    with output_folder(path, overwrite=False) as output:
        assert path.is_dir()
        output.put("cells.h5ad", lambda place: place.write_text("cells"))
        assert (path / "cells.h5ad").read_text() == "cells"
        (output.work / "model").mkdir()
        (output.work / "model" / "model.json").write_text("{}")
        output.put_folder("model")
        assert output.saved == ["cells.h5ad", "model/model.json"]
    assert listing(path) == ["cells.h5ad", "model", "run.json"]
    record = json.loads((path / "run.json").read_text())
    assert record["files"] == ["cells.h5ad", "model/model.json"]
    assert record["finished"] is not None
    assert listing(path.parent) == ["out"]


def test_a_folder_that_cannot_be_renamed_is_as_good(tmp_path, monkeypatch):
    """As the mount point of a volume."""
    path = tmp_path / "out"
    path.mkdir()
    rename = os.rename

    def busy(source, target):
        if path in map(type(path), (source, target)):
            raise OSError(16, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    write(path)
    assert (path / "report.html").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_after_an_error_at_the_start(tmp_path, error):
    def fail():
        with output_folder(tmp_path / "a" / "out", overwrite=False) as output:
            (output.work / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert listing(tmp_path) == []


def test_what_was_saved_stays_after_an_error(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(ValueError, match="late"):
        write(path, "cells", name="cells.h5ad", settings={"seed": 0}, fails=ValueError("late"))
    assert listing(path) == ["cells.h5ad", "run.json"]
    # of other settings, they are not replaced unless it is asked for
    with pytest.raises(ValueError, match=r"unfinished results; .* --overwrite"):
        write(path, settings={"seed": 1})
    assert (path / "cells.h5ad").read_text() == "cells"
    # the same run goes on, and removes what it does not write
    write(path, settings={"seed": 0})
    assert listing(path) == ["report.html", "run.json"]


def test_somebody_elses_things_stay(tmp_path):
    def fail():
        with output_folder(tmp_path / "a" / "out", overwrite=False) as output:
            (tmp_path / "a" / "other").write_text("mine")
            (output.path / "clusters.csv").write_text("mine")
            output.put("clusters.csv", lambda place: place.write_text("ours"))

    with pytest.raises(
        FileExistsError, match=r"clusters\.csv was created by another process during the run"
    ):
        fail()
    assert (tmp_path / "a" / "out" / "clusters.csv").read_text() == "mine"
    assert (tmp_path / "a" / "other").read_text() == "mine"
    assert listing(tmp_path / "a" / "out") == ["clusters.csv"]


def test_a_second_run_is_refused_at_once(tmp_path):
    with output_folder(tmp_path / "out", overwrite=False) as output:
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=rf"in use: process {os.getpid()} on "):
                write(tmp_path / "out", overwrite=overwrite)
        output.put("report.html", lambda place: place.write_text("first"))
    assert (tmp_path / "out" / "report.html").read_text() == "first"


def killed(path, *, settings):
    """A run that was killed when it had written its cells."""
    code = (
        "import os, sys, json; from pathlib import Path\n"
        "from scmoe.cli._output import output_folder\n"
        "with output_folder(Path(sys.argv[1]), overwrite=False, settings=json.loads(sys.argv[2])) "
        "as output:\n"
        "    output.put('cells.h5ad', lambda place: place.write_text('cells'))\n"
        "    (output.work / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", code, str(path), json.dumps(settings)]
    assert subprocess.run(words, check=False).returncode == -9


@pytest.mark.parametrize("locks", [True, False])
def test_what_a_killed_run_left(tmp_path, monkeypatch, locks):
    path = tmp_path / "out"
    killed(path, settings={"seed": 0})
    if not locks:
        monkeypatch.setattr(atomic, "fcntl", None)
    with pytest.raises(ValueError, match="unfinished results"):
        write(path, settings={"seed": 1})
    write(path, settings={"seed": 0})
    left = [name for name in listing(path) if name.endswith(".part")]
    assert len(left) == (0 if locks else 1)
    assert [name for name in listing(path) if name not in left] == ["report.html", "run.json"]


def test_a_living_run_without_locks_is_known_by_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    path = tmp_path / "out"
    with output_folder(path, overwrite=False), pytest.raises(ValueError, match="in use"):
        write(path)


def test_overwrite(tmp_path):
    path = tmp_path / "out"
    write(path, "old")
    with pytest.raises(ValueError, match="--overwrite"):
        write(path)
    write(path, "cells", overwrite=True, name="fcs/a.fcs")
    # the page of the run before is none of this run
    assert listing(path) == ["fcs", "run.json"]
    write(path, "new", overwrite=True)
    assert listing(path) == ["report.html", "run.json"]
    assert (path / "report.html").read_text() == "new"


def test_the_old_results_survive_until_there_are_new_ones(tmp_path):
    path = tmp_path / "out"
    write(path, "old")
    record = (path / "run.json").read_bytes()

    def fail():
        with output_folder(path, overwrite=True):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert (path / "report.html").read_text() == "old"
    assert (path / "run.json").read_bytes() == record


def test_old_and_new_results_never_lie_side_by_side(tmp_path):
    path = tmp_path / "out"
    write(path, "old")
    with output_folder(path, overwrite=True) as output:
        assert (path / "report.html").read_text() == "old"
        output.put("cells.h5ad", lambda place: place.write_text("new"))
        assert not (path / "report.html").exists()
        # one that somebody puts there now is theirs
        (path / "report.html").write_text("mine")
        with pytest.raises(FileExistsError, match="created by another process"):
            output.put("report.html", lambda place: place.write_text("new"))
    assert (path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["thesis.docx", "plate.fcs", "cells.h5ad"])
def test_overwrite_spares_what_is_not_ours(tmp_path, name):
    path = tmp_path / "out"
    write(path)
    (path / name).write_text("mine")
    with pytest.raises(ValueError, match=name):
        write(path, overwrite=True)
    assert (path / name).read_text() == "mine"
    (path / "run.json").unlink()
    (path / "report.html").unlink()
    with pytest.raises(ValueError, match="was not written by scmoe"):
        write(path, overwrite=True)
    assert listing(path) == [name]


def test_a_record_that_leads_elsewhere(tmp_path):
    path = tmp_path / "out"
    write(path)
    (tmp_path / "precious").write_text("mine")
    record = json.loads((path / "run.json").read_text())
    record["files"] += ["../precious", str(tmp_path / "precious")]
    (path / "run.json").write_text(json.dumps(record))
    write(path, overwrite=True, name="cells.h5ad")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        write(tmp_path / "out", overwrite=True)
