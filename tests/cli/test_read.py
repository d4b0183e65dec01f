from __future__ import annotations

import anndata as ad
import flowio
import numpy as np
import pytest

from scmoe.cli import _read
from scmoe.cli._settings import Settings
from scmoe.io._paths import find_files


@pytest.fixture
def settings(tmp_path):
    for i in range(2):
        with (tmp_path / f"{i}.fcs").open("wb") as handle:
            flowio.create_fcs(handle, np.arange(2000.0), ["CD3", "CD4"])
    return Settings(files=(str(tmp_path),), output=tmp_path / "out")


def test_what_fits_into_memory(settings, monkeypatch):
    files = find_files(settings.files)
    # 2 x 1,000 cells with 2 float32 and a name, three times
    needed = 3 * 2000 * (2 * 4 + 150)
    for n_bytes, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(_read, "available_memory", lambda n=n_bytes: n)
        assert _read.fits_into_memory(files, settings) is fits


def test_store_holds_what_is_read(settings, tmp_path):
    files = find_files(settings.files)
    store = _read.write_store(files, settings, tmp_path, progress=False)
    stored, adata = ad.read_zarr(store), _read.read(settings, progress=False)
    np.testing.assert_array_equal(stored.X, adata.X)
    assert list(stored.obs_names) == list(adata.obs_names)
