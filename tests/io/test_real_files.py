"""Every real FCS file that we have."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import flowio
import numpy as np
import pytest

from scmoe.io import FCSReadError, FCSRepairWarning, read_fcs

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="real files are looked for in the folder that SCMOE_DATA_DIR names"
)
FILES = sorted(path for path in DATA.glob("fcs/*/*") if path.is_file())
REFUSED = {"corrupted.fcs": "no FCS file", "sample_header.fcs": "truncated"}
# flowio applies a logarithm to floats of these, which hold linear counts
LINEAR = ("Data23_Panel3",)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_is_read_as_flowio_reads_it_or_refused(path):
    if path.name in REFUSED:
        with pytest.raises(FCSReadError, match=REFUSED[path.name]):
            read_fcs(path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FCSRepairWarning)
        adata = read_fcs(path)
    assert adata.n_obs > 0
    with warnings.catch_warnings(), path.open("rb") as handle:
        warnings.simplefilter("ignore")
        try:
            theirs = flowio.FlowData(handle, ignore_offset_error=True, nextdata_offset=0)
            values = theirs.as_array()
        except (ValueError, KeyError, flowio.exceptions.FlowIOException):
            return
    if not path.name.startswith(LINEAR):
        np.testing.assert_array_equal(adata.X, values.astype(np.float32))


@pytest.mark.parametrize("path", sorted(DATA.glob("fcs/tidytof/*")), ids=lambda path: path.name)
def test_agrees_with_readfcs(path):
    readfcs = pytest.importorskip("readfcs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = readfcs.read(str(path))
    ours = read_fcs(path)
    np.testing.assert_array_equal(ours.X, theirs.X)
    assert list(ours.var["channel"]) == list(theirs.var["channel"])
    assert list(ours.var["marker"]) == list(theirs.var["marker"])


@pytest.mark.parametrize("folder", ["bodenmiller/H05", "bodenmiller/H08", "bcr_xl"])
def test_byte_off_by_one_needs_no_option(folder, tmp_path):
    with pytest.warns(FCSRepairWarning) as caught:
        adata = read_fcs(DATA / folder)
    assert len(caught) == 1
    assert adata.n_vars == 35
    for record in adata.uns["fcs"].values():
        assert record["repairs"] == [
            "HEADER gives the end of TEXT one byte late",
            "TEXT gives the end of DATA one byte late",
        ]
    adata.write_h5ad(tmp_path / "x.h5ad")
