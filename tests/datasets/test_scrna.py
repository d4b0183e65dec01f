from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scmoe import datasets


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("load", "shape", "populations", "largest"),
    [
        (datasets.pbmc_10x, (4271, 2000), [str(i) for i in range(1, 9)], ("1", 1292)),
        (datasets.human_kidney, (5685, 2000), [str(i) for i in range(11)], ("6", 1498)),
    ],
)
def test_counts(load, shape, populations, largest, tmp_path):
    adata = load()
    assert adata.shape == shape
    assert sparse.issparse(adata.X)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.data, np.round(adata.X.data))
    assert adata.X.data.min() == 1
    assert list(adata.obs["population"].cat.categories) == populations
    name, size = largest
    assert (adata.obs["population"] == name).sum() == size
    assert (adata.var_names[0], adata.var_names[-1]) == ("gene_0", "gene_1999")
    assert adata.obs_names.is_unique
    adata.write_h5ad(tmp_path / "x.h5ad")


@pytest.mark.usefixtures("real_data")
def test_tabula_muris_kidney(tmp_path):
    adata = datasets.tabula_muris_kidney()
    assert adata.shape == (215, 23_341)
    sizes = adata.obs["population"].value_counts()
    assert sizes.to_dict() == {
        "endothelial cell": 122,
        "kidney collecting duct epithelial cell": 78,
        "leukocyte": 15,
    }
    assert list(adata.obs["cell_type"]) == list(adata.obs["population"])
    assert "Aqp2" in adata.var_names
    # what the docstring says of the normalisation
    totals = np.asarray(np.exp2(adata.X.toarray().astype(np.float64)) - 1).sum(axis=1)
    np.testing.assert_allclose(totals, 825_688, rtol=1e-5)
    adata.write_h5ad(tmp_path / "x.h5ad")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "load", [datasets.pbmc_10x, datasets.human_kidney, datasets.tabula_muris_kidney]
)
def test_what_cannot_be_downloaded(load):
    with pytest.raises(FileNotFoundError, match=r"original is at https.*SCMOE_DATA_DIR"):
        load()
