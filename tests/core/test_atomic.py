"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scmoe._core import atomic
from scmoe._core.atomic import lock, remove_folder, workspace, write_files, write_folder


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_writes_bytes_and_by_functions(tmp_path):
    files = {"a": b"1", "b": lambda path: path.write_bytes(b"2")}
    write_folder(tmp_path / "deep" / "m", files)
    assert content(tmp_path / "deep" / "m") == {"a": b"1", "b": b"2"}
    assert os.listdir(tmp_path / "deep") == ["m"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_changes_nothing(tmp_path, error, there):
    def fails(path):
        path.write_bytes(b"half")
        raise error

    if there:
        write_folder(tmp_path / "m", {"a": b"old"})
    with pytest.raises(type(error)):
        write_folder(tmp_path / "m", {"a": b"new", "b": fails}, replace=True)
    assert os.listdir(tmp_path) == (["m"] if there else [])
    if there:
        assert content(tmp_path / "m") == {"a": b"old"}


def test_a_failure_between_the_two_names(tmp_path, monkeypatch):
    """The old folder has been moved away, the new one can't take its name."""
    write_folder(tmp_path / "m", {"a": b"old"})
    rename = os.rename

    def breaks(source, target):
        if os.fspath(source).endswith("new"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", breaks)
    with pytest.raises(OSError, match="no"):
        write_folder(tmp_path / "m", {"a": b"new"}, replace=True)
    assert os.listdir(tmp_path) == ["m"]
    assert content(tmp_path / "m") == {"a": b"old"}


def test_an_interrupt_after_the_new_name(tmp_path, monkeypatch):
    write_folder(tmp_path / "m", {"a": b"old"})
    flush = atomic.flush

    def interrupted(path):
        if path == tmp_path:
            raise KeyboardInterrupt
        flush(path)

    monkeypatch.setattr(atomic, "flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "m", {"a": b"new"}, replace=True)
    assert os.listdir(tmp_path) == ["m"]
    assert content(tmp_path / "m") == {"a": b"new"}


def test_does_not_replace_unless_told(tmp_path):
    write_folder(tmp_path / "m", {"a": b"old"})
    with pytest.raises(OSError, match="m"):
        write_folder(tmp_path / "m", {"a": b"new"})
    assert content(tmp_path / "m") == {"a": b"old"}
    assert os.listdir(tmp_path) == ["m"]


def test_through_a_link(tmp_path):
    write_folder(tmp_path / "m", {"a": b"old"})
    (tmp_path / "link").symlink_to(tmp_path / "m")
    write_folder(tmp_path / "link", {"a": b"new"}, replace=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "m") == {"a": b"new"}
    assert sorted(os.listdir(tmp_path)) == ["link", "m"]


def test_permissions_are_the_usual_ones(tmp_path):
    (tmp_path / "usual").mkdir()
    write_folder(tmp_path / "m", {"a": b"1"})
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "usual").stat().st_mode


def left_by_a_killed_process(parent):
    """A temporary folder whose process is gone, with a folder that it was about to replace."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from scmoe._core.atomic import workspace\n"
        "parent = Path(sys.argv[1])\n"
        "with workspace(parent) as work:\n"
        "    (work / 'old').mkdir()\n"
        "    (work / 'half').write_text('half')\n"
        "    (parent / 'precious').mkdir()\n"
        "    os.rename(parent / 'precious', work / 'old' / 'precious')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(parent)], check=False)
    assert done.returncode == -9
    assert len(os.listdir(parent)) == 1


@pytest.mark.parametrize("write", ["folder", "files", "remove"])
def test_what_a_killed_process_left_is_removed(tmp_path, write):
    left_by_a_killed_process(tmp_path)
    if write == "folder":
        write_folder(tmp_path / "m", {"a": b"new"})
    elif write == "files":
        write_files([(tmp_path / "m", lambda handle: handle.write(b"new"))], tmp_path)
    else:
        (tmp_path / "m").mkdir()
        remove_folder(tmp_path / "m")
    there = ["precious"] if write == "remove" else ["m", "precious"]
    assert sorted(os.listdir(tmp_path)) == there


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with workspace(tmp_path) as work:
        (work / "half").write_text("half")
        write_folder(tmp_path / "m", {"a": b"new"})
        assert (work / "half").read_text() == "half"
    assert os.listdir(tmp_path) == ["m"]


def test_without_locks_nothing_is_taken_for_left(tmp_path, monkeypatch):
    left_by_a_killed_process(tmp_path)
    monkeypatch.setattr(atomic, "fcntl", None)
    write_folder(tmp_path / "m", {"a": b"new"})
    assert len(os.listdir(tmp_path)) == 2


def test_a_lock_is_held_once(tmp_path):
    handle = lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock(tmp_path / "lock")
    os.close(handle)
    os.close(lock(tmp_path / "lock"))


@pytest.mark.parametrize("name", ["n" * 255, os.fsdecode(b"plate_\xff")])
def test_names_at_the_limits(tmp_path, name):
    write_folder(tmp_path / name, {name: b"1"})
    write_files([(tmp_path / name / "b", lambda handle: handle.write(b"2"))], tmp_path / name)
    assert content(tmp_path / name) == {name: b"1", "b": b"2"}
