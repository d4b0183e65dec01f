"""A folder that appears as a whole, or not at all."""

from __future__ import annotations

import pytest

from scmoe.cli._folder import output_folder


def write(path, text="new", *, overwrite=False):
    with output_folder(path, overwrite=overwrite) as folder:
        assert folder.parent == path.parent
        (folder / "report.html").write_text(text)


def test_appears_at_the_end(tmp_path):
    path = tmp_path / "a" / "b" / "out"
    with output_folder(path, overwrite=False) as folder:
        (folder / "report.html").write_text("new")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["report.html"]
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_the_users(tmp_path):
    (tmp_path / "plain").mkdir()
    write(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_after_an_error(tmp_path, error):
    def fail():
        with output_folder(tmp_path / "a" / "out", overwrite=False) as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_parents_that_hold_something_stay(tmp_path):
    def fail():
        with output_folder(tmp_path / "a" / "out", overwrite=False):
            (tmp_path / "a" / "other").write_text("mine")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["other"]


def test_what_a_killed_run_left(tmp_path):
    left = tmp_path / ".out-unfinished"
    left.mkdir()
    (left / "half").write_text("half")
    with output_folder(tmp_path / "out", overwrite=False, alone=True) as folder:
        assert folder == left
        assert list(folder.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_overwrite(tmp_path):
    path = tmp_path / "out"
    write(path, "old")
    with pytest.raises(ValueError, match="--overwrite"):
        write(path)
    write(path, overwrite=True)
    assert (path / "report.html").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["thesis.docx", "plate.fcs"])
def test_overwrite_spares_what_is_not_ours(tmp_path, name):
    path = tmp_path / "out"
    write(path)
    (path / name).write_text("mine")
    with pytest.raises(ValueError, match=name):
        write(path, overwrite=True)
    (path / "report.html").unlink()
    (path / name).rename(path / "fcs")
    with pytest.raises(ValueError, match=r"has no report\.html"):
        write(path, overwrite=True)
    assert (path / "fcs").read_text() == "mine"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        write(tmp_path / "out", overwrite=True)


def test_the_old_one_comes_back(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write(path, "old")
    rename = type(path).rename

    def fail(source, target):
        if target == path and not source.name.endswith("-old"):
            raise OSError("no")
        return rename(source, target)

    monkeypatch.setattr(type(path), "rename", fail)
    with pytest.raises(OSError, match="no"):
        write(path, overwrite=True)
    assert (path / "report.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
