"""Data sets that are on this machine, and ones that are not."""

from __future__ import annotations

import pytest

from scmoe.datasets import _registry


@pytest.fixture
def real_data(data_dir, monkeypatch):
    monkeypatch.setenv("SCMOE_DATA_DIR", str(data_dir))


@pytest.fixture
def cache(tmp_path):
    """An empty folder as the one where scanpy keeps data sets."""
    import scanpy as sc

    before = sc.settings.datasetdir
    sc.settings.datasetdir = tmp_path / "cache"
    yield tmp_path / "cache"
    sc.settings.datasetdir = before


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, cache):
    """No data on this machine: an empty cache, an empty SCMOE_DATA_DIR, no network."""

    def refuse(url, **kwargs):
        raise ConnectionError(f"no route to {url}")

    monkeypatch.setenv("SCMOE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(_registry.pooch, "retrieve", refuse)
    return tmp_path
