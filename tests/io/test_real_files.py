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
REFUSED = {"corrupted.fcs": "not an FCS file", "sample_header.fcs": "truncated"}
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


def test_offsets_in_text_only():
    with pytest.warns(FCSRepairWarning, match="HEADER does not say where DATA lies"):
        adata = read_fcs(DATA / "fcs/fcsparser/fake_large_fcs.fcs")
    original = read_fcs(DATA / "fcs/fcsparser/FCS_3.0_Fortessa_PBS_Specimen_001_A1_A01.fcs")
    np.testing.assert_array_equal(adata.X, original.X)


def test_blanks_before_a_keyword():
    with pytest.warns(FCSRepairWarning, match=r"blanks around the keyword \$DATATYPE"):
        adata = read_fcs(DATA / "fcs/cytoflow_instruments/Partec - CyFlow v2.9.fcs")
    # the first event is 30 44 20 2b 56 60 00 00, of 32,768 channels a parameter
    words = np.array([0x4430, 0x2B20, 0x6056]) / 32768
    expected = [10 ** (3 * words[0]), 10 ** (4 * words[1]) / 10, 10 ** (4 * words[2]) / 10, 0]
    np.testing.assert_allclose(adata.X[0], expected, rtol=1e-6)
    assert (np.diff(adata[:, "Time"].X.ravel()) >= 0).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "markers"),
    [
        # heights that were stored as logarithms, and an unused area
        ("flowio/data1.fcs", ["FL1-H", "FL2-H", "FL3-H", "FL4-H"]),
        ("flowio/coulter.lmd", ["FL1 Log", "FL2 Log", "FL3 Log"]),
        ("flowio/G11.fcs", ["BL1-A", "YL2-A", "VL1-A"]),
        ("cytoflow_instruments/iCyt - Eclipse.lmd", ["FL1", "FL2", "FL3", "FL4", "FL5"]),
        # one of its channels is 7-AAD
        (
            "flowkit/index_sorted_example.fcs",
            ["BL 530/30-A", "YG 586/15-A", "YG 780/60-A", "RL 780/60-A", "VL 525/50-A"],
        ),
    ],
)
def test_markers(name, markers):
    var = read_fcs(DATA / "fcs" / name).var
    assert list(var["channel"][var["kind"] == "fluor"]) == markers


def test_record_of_each_file():
    folder = DATA / "bodenmiller" / "H05"
    with pytest.warns(FCSRepairWarning):
        adata = read_fcs(folder)
    record = adata.uns["fcs"]["Staurosporine_nk_H05"]
    assert record["keywords"].loc["cyt", "value"] == "DVSSCIENCES-CYTOF"
    assert len(record["sha256"]) == 64
    assert list(adata.obs["event"][:3]) == [0, 1, 2]
