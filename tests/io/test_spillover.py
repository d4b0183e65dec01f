"""Spillover matrices, as each version of the standard writes them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from fcs_file import read_file

from scmoe.io import FCSRepairWarning, read_fcs, write_fcs
from scmoe.pp import compensate

CHANNELS = ["FSC-H", "FL1-H", "FL2-H"]


def spilled(make_fcs, channels=CHANNELS, markers=None, **keywords):
    path = make_fcs(events=[[1, 2, 3]], channels=channels, markers=markers, keywords=keywords)
    file = read_file(path)
    return file.spillover, file.repairs


@pytest.mark.parametrize("keyword", ["$SPILLOVER", "SPILL", "SPILLOVER", "$SPILL", "spill"])
def test_by_name(make_fcs, keyword):
    matrix, repairs = spilled(make_fcs, **{keyword: "2,FL2-H,FL1-H,1,0.2,0.1,1"})
    assert list(matrix.index) == ["FL2-H", "FL1-H"]
    np.testing.assert_array_equal(matrix, [[1, 0.2], [0.1, 1]])
    assert repairs == []


def test_by_number_of_the_channel(make_fcs):
    full = "3,1,0,0,0,1,0.2,0,0.1,1"
    matrix, _ = spilled(make_fcs, **{"$COMP": full})
    assert list(matrix.index) == CHANNELS
    assert matrix.loc["FL1-H", "FL2-H"] == 0.2
    matrix, _ = spilled(make_fcs, **{"$COMP": "2,100,20,10,100"})
    assert list(matrix.index) == ["FL1-H", "FL2-H"]
    np.testing.assert_allclose(matrix, [[1, 0.2], [0.1, 1]])


def test_what_the_instrument_subtracted(make_fcs, tmp_path):
    keywords = {"$DFC1TO2": " 20", "$DFC2TO1": "1.5", "$DFC1TO1": "0"}
    path = make_fcs(events=[[1, 2, 3]], channels=CHANNELS, version="FCS2.0", keywords=keywords)
    read_fcs(path).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    shares = adata.uns["fcs"]["cells"]["subtracted"]
    assert list(shares.index) == list(shares.columns) == ["FL1-H", "FL2-H"]
    np.testing.assert_allclose(shares, [[0, 0.2], [0.015, 0]])
    # no matrix: the values are compensated
    assert "spillover" not in adata.uns["fcs"]["cells"]
    with pytest.raises(
        ValueError, match=r"'cells' the file carries no matrix.*compensated before"
    ):
        compensate(adata)
    np.testing.assert_array_equal(adata.X, [[1, 2, 3]])
    matrix = shares + np.eye(2)
    with pytest.warns(UserWarning, match="had compensated sample 'cells' before.*on top of that"):
        compensate(adata, spillover=matrix)
    # files that are written anew say it, too
    path.unlink()
    adata.obs["k"] = ["1"]
    adata.layers["raw"] = adata.X
    (new,) = write_fcs(adata, tmp_path / "out", obs="k", layer="raw")
    assert read_fcs(new).uns["fcs"]["cells"]["subtracted"].equals(shares)


def test_detectors_that_are_no_channel(make_fcs):
    file = read_file(make_fcs(keywords={"$DFC1TO7": "3", "$DFC1TO2": "0"}))
    assert file.spillover is None
    assert file.spill.subtracted.loc["FL1", "FL7"] == 0.03
    assert file.repairs == []
    file = read_file(make_fcs(keywords={"$DFC1TO2": "x"}))
    assert file.spill.subtracted is None
    assert file.repairs == [
        "what the instrument subtracted was left out: $DFC1TO2 is 'x', not a number"
    ]
    assert read_file(make_fcs(keywords={"$DFC1TO2": "0"})).spill.subtracted is None


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"SPILL": "2,FL1-H,FL2-H,1,0.3,0,1"}, "$SPILLOVER and SPILL hold different"),
        ({"$COMP": "2,100,30,0,100"}, "$SPILLOVER and $COMP hold different"),
        ({"SPILL": "2,FL1-H,FL2-H,1,x,0,1"}, "left out: SPILL holds 'x'"),
        # the same in another order, and with a channel that spills nowhere
        ({"SPILL": "3,FSC-H,FL2-H,FL1-H,1,0,0,0,1,0,0,0.25,1"}, None),
        ({"$COMP": "2,100,25,0,100"}, None),
        ({"$DFC1TO2": "5"}, "$DFCiTOj says that the instrument subtracted"),
    ],
)
def test_two_matrices(make_fcs, keywords, told):
    keywords = {"$SPILLOVER": "2,FL1-H,FL2-H,1,0.25,0,1"} | keywords
    matrix, repairs = spilled(make_fcs, **keywords)
    np.testing.assert_array_equal(matrix, [[1, 0.25], [0, 1]])
    assert [told in text for text in repairs] == ([] if told is None else [True])


def test_the_usable_one_of_two_matrices(make_fcs):
    keywords = {"$SPILLOVER": "2,FL1-H,FL9-H,1,0,0,1", "SPILL": "2,FL1-H,FL2-H,1,0.3,0,1"}
    matrix, repairs = spilled(make_fcs, **keywords)
    assert matrix.loc["FL1-H", "FL2-H"] == 0.3
    assert len(repairs) == 1
    assert "FL9-H" in repairs[0]
    assert repairs[0].endswith("SPILL was used")


def test_by_marker(make_fcs):
    markers = ["", "CD3", "FSC-H"]
    matrix, repairs = spilled(make_fcs, markers=markers, SPILL="2,CD3,FL2-H,1,0.1,0,1")
    assert list(matrix.index) == ["FL1-H", "FL2-H"]
    assert repairs == ["SPILL names markers, not channels: CD3"]
    # a channel of that name comes first
    matrix, _ = spilled(make_fcs, markers=markers, SPILL="2,CD3,FSC-H,1,0.1,0,1")
    assert list(matrix.index) == ["FL1-H", "FSC-H"]
    # a number is that of a channel, if no marker is called so
    for markers in (["", "CD3", "CD3"], ["CD3", "", "1"]):
        matrix, repairs = spilled(make_fcs, markers=markers, SPILL=f"2,{markers[2]},FL2-H,1,0,0,1")
        assert matrix is None
        assert "several channels answer to" in repairs[0]


def test_why_a_matrix_was_left_out(make_fcs, tmp_path):
    paths = [
        make_fcs(f"{name}.fcs", keywords=keywords)
        for name, keywords in {
            "a": {"$SPILLOVER": "2,A,C,1,0,0,1"}, "b": {}, "c": {"$DFC1TO2": "5"}
        }.items()
    ]  # fmt: skip
    with pytest.warns(FCSRepairWarning, match="left out"):
        adata = read_fcs(paths)
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    told = r"'a', 'b', 'c' \('a'\) the matrix of the file was left out: \$SPILLOVER names 'C'.*"
    with pytest.raises(
        ValueError, match=told + r"\('b'\) .* has no.*\('c'\) .*compensated before"
    ):
        compensate(adata)


def test_channels_that_h5ad_spells_alike(make_fcs, tmp_path):
    channels = ["A/x", "A_x", "."]
    keywords = {"$SPILLOVER": "3,A/x,A_x,.,1,0.5,0,0,1,0,0,0,1"}
    path = make_fcs(events=[[1, 2, 3]], channels=channels, delimiter="|", keywords=keywords)
    read_fcs(path).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    assert list(adata.uns["fcs"]["cells"]["spillover"].index) == channels
    compensate(adata)
    np.testing.assert_array_equal(adata.X, [[1, 1.5, 3]])


@pytest.mark.parametrize(
    "keywords",
    [
        {"$COMP": "2,1,0,0"},
        {"$COMP": "1,1"},
        {"$COMP": "3,1,0,0,0,7,0,0,0,1"},
        {"SPILL": "2,FL1-H,FL2-H,1,nan,0,1"},
        {"SPILL": "9999999,FL1-H"},
    ],
)
def test_matrix_that_is_left_out(make_fcs, keywords):
    matrix, repairs = spilled(make_fcs, **keywords)
    assert matrix is None
    assert repairs[0].startswith("the spillover matrix was left out: ")


def test_name_of_two_channels(make_fcs):
    channels = ["A", "FL1-H", "FL1-H"]
    matrix, repairs = spilled(make_fcs, channels, SPILL="2,A,FL1-H,1,0,0,1")
    assert matrix is None
    assert "several channels" in repairs[0]
