"""Data sets that are on this machine, and ones that are not."""

from __future__ import annotations

import pooch
import pytest


@pytest.fixture
def real_data(data_dir, monkeypatch):
    monkeypatch.setenv("SCMOE_DATA_DIR", str(data_dir))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder as the one where scanpy keeps data sets, and no other."""
    import scanpy as sc

    monkeypatch.delenv("SCMOE_DATA_DIR", raising=False)
    before = sc.settings.datasetdir
    sc.settings.datasetdir = tmp_path / "cache"
    yield tmp_path / "cache" / "scmoe"
    sc.settings.datasetdir = before


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No data on this machine: an empty SCMOE_DATA_DIR and no network."""

    def refuse(self, url, *args, **kwargs):
        raise ConnectionError(f"no route to {url}")

    monkeypatch.setenv("SCMOE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    return tmp_path
