"""Cells with a neighbour graph, and a way to see whether anything was changed."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

SLOTS = ["X", "obs", "var", "obsm", "varm", "layers", "obsp", "uns"]


@pytest.fixture
def linked(linked):
    """The shared blobs with a graph, and scanpy's record of it, a layer and a representation."""
    linked.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"k": 10}}
    linked.layers["raw"] = 2 * linked.X
    linked.obsm["X_rep"] = linked.X[:, :4].copy()
    return linked


def assert_equal(after, before):
    """Equal in type and value, NaN to NaN."""
    assert type(after) is type(before)
    if isinstance(before, dict):
        assert set(after) == set(before)
        for key in before:
            assert_equal(after[key], before[key])
    elif isinstance(before, pd.DataFrame):
        pd.testing.assert_frame_equal(after, before)
    elif sparse.issparse(before):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after.toarray(), before.toarray())
    elif isinstance(before, np.ndarray):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    else:
        assert after == before


@pytest.fixture
def same():
    """Compare with earlier: ``before = same.look(adata)``, then ``same(adata, before)``."""

    class Same:
        def look(self, adata):
            parts = {}
            for slot in SLOTS:
                value = getattr(adata, slot)
                is_mapping = slot in ("obsm", "varm", "layers", "obsp", "uns")
                parts[slot] = deepcopy(dict(value)) if is_mapping else deepcopy(value)
            return parts

        def __call__(self, adata, before):
            assert_equal(self.look(adata), before)

    return Same()
