"""The data sets of the benchmarks that cannot be downloaded."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import data
from scipy import sparse

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize(
    ("load", "shape", "populations", "unlabelled"),
    [
        (lambda: data.multicenter(8), (63_258, 8), 4, True),
        (data.samusik_ramp, (10_000, 38), 23, False),
        (data.levine32_balanced, (1_500, 37), 14, True),
        (data.pbmc_10x, (4_271, 2_000), 8, False),
        (data.human_kidney, (5_685, 2_000), 11, False),
        (data.tabula_muris_kidney, (215, 23_341), 3, False),
    ],
)
def test_cells(load, shape, populations, unlabelled):
    adata = load()
    assert adata.shape == shape
    assert adata.X.dtype == np.float32
    assert adata.obs["population"].nunique() == populations
    assert adata.obs["population"].isna().any() == unlabelled
    assert adata.obs_names.is_unique
    if sparse.issparse(adata.X):
        assert adata.X.format == "csr"
    else:
        assert (adata.var["kind"] == "mass").sum() == {37: 32}.get(adata.n_vars, adata.n_vars)


@pytest.mark.usefixtures("data_dir")
def test_coil20():
    adata = data.coil20()
    assert adata.shape == (1_440, 1_024)
    assert list(adata.uns["image_shape"]) == [32, 32]
    assert set(adata.obs["label"].value_counts()) == {72}


def test_missing_and_wrong_files(tmp_path, monkeypatch):
    monkeypatch.delenv("SCMOE_DATA_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match=r"origin: https://.*SCMOE_DATA_DIR"):
        data.samusik_ramp()
    monkeypatch.setenv("SCMOE_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="multicenter/sample03"):
        data.multicenter(3)
    (tmp_path / "coil20.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the known file"):
        data.coil20()
