"""Spillover matrices, as each version of the standard writes them."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.io._file import read_file

CHANNELS = ["FSC-H", "FL1-H", "FL2-H"]


def spilled(make_fcs, channels=CHANNELS, **keywords):
    path = make_fcs(events=[[1, 2, 3]], channels=channels, keywords=keywords)
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


def test_percentages_of_detectors(make_fcs):
    matrix, repairs = spilled(make_fcs, **{"$DFC1TO2": " 20", "$DFC2TO1": "1.5", "$DFC1TO1": "0"})
    assert list(matrix.index) == ["FL1-H", "FL2-H"]
    np.testing.assert_allclose(matrix, [[1, 0.2], [0.015, 1]])
    assert repairs == []
    assert spilled(make_fcs, **{"$DFC1TO2": "0"})[0] is None


@pytest.mark.parametrize(
    "keywords",
    [
        {"$COMP": "2,1,0,0"},
        {"$COMP": "1,1"},
        {"$COMP": "3,1,0,0,0,7,0,0,0,1"},
        {"$DFC1TO7": "3"},
        {"$DFC1TO2": "x"},
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
