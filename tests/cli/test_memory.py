from __future__ import annotations

import os

import pytest

from scmoe.cli import _memory
from scmoe.cli._memory import available_memory


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Linux as it is told by a folder."""

    def tell(limit="max"):
        group = tmp_path / "job"
        group.mkdir(exist_ok=True)
        (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:  500 kB\n")
        (tmp_path / "own").write_text("1:cpu:/x\n0::/job\n")
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("300000\n")
        (group / "memory.stat").write_text("anon 1\ninactive_file 100000\n")

    monkeypatch.setattr(_memory, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(_memory, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(_memory, "GROUPS", tmp_path)
    return tell


def test_the_smaller_of_machine_and_job(told):
    told()
    assert available_memory() == 500 * 1024
    told(limit=600_000)
    assert available_memory() == 400_000


def test_a_system_that_tells_nothing(told):
    assert available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
