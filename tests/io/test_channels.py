from __future__ import annotations

import pytest

from scmoe.io._channels import channel_kind, is_mass_cytometer, variable_names


@pytest.mark.parametrize(
    "channel",
    ["CD4(Nd145)Dd", "CD3(110:114)Dd", "Nd145Di", "145Nd", "CD19_Nd142", "CD90_Lu176Di", "Y89Di"],
)
def test_metals_tell_a_mass_cytometer(channel):
    assert is_mass_cytometer(["Time", channel], "")


@pytest.mark.parametrize("cytometer", ["DVSSCIENCES-CYTOF-6.5.358", "Helios", "simulated CyTOF"])
def test_name_tells_a_mass_cytometer(cytometer):
    assert is_mass_cytometer(["CD3"], cytometer)


@pytest.mark.parametrize(
    "channel",
    ["FSC-A", "PE-Cy7-A", "V450-A", "Y586-A", "FL1 INT LOG", "L3 450-50", "R660", "CD45"],
)
def test_flow_cytometer(channel):
    assert not is_mass_cytometer([channel], "LSRII")


@pytest.mark.parametrize(
    ("channel", "marker", "kind"),
    [
        ("CD4(Nd145)Dd", "CD4", "mass"),
        ("Nd145Di", "145Nd_CD4", "mass"),
        ("CD45_In115", "CD45_In115", "mass"),
        ("Xe131Di", "", "mass"),
        ("Time", "Time", "time"),
        ("Event_length", "", "other"),
        ("Cell_length", "Cell_length", "other"),
        ("Center", "", "other"),
        ("Residual", "", "other"),
        ("Width", "", "other"),
        ("BC1(La139)Dd", "BC1", "other"),
        ("DNA-1(Ir191)Dd", "DNA-1", "other"),
        ("Ir191Di", "191Ir_DNA1", "other"),
        ("Ir193Di", "", "other"),
        ("viability_Pt195", "viability_Pt195", "other"),
        ("Pt198Di", "198Pt_Dead", "other"),
        ("empty_I127", "empty_I127", "other"),
        ("beadst_beadDist", "beadst_beadDist", "other"),
        ("label", "", "other"),
        ("population", "", "other"),
        ("Ki67_Sm152", "Ki67_Sm152", "mass"),
        ("CD103_Nd148", "CD103_Nd148", "mass"),
    ],
)
def test_kind_in_mass_cytometry(channel, marker, kind):
    assert channel_kind(channel, marker, mass=True) == kind


@pytest.mark.parametrize(
    ("channel", "marker", "kind"),
    [
        ("FITC-A", "CD3", "fluor"),
        ("PE-A", "", "fluor"),
        ("PE-A", "SSEA-4", "fluor"),
        ("FSC-A", "", "scatter"),
        ("SSC-B-H", "", "scatter"),
        ("VSSC-A", "", "scatter"),
        ("FS INT LIN", "FS INT LIN", "scatter"),
        ("SSC1-Height", "405-SSC", "scatter"),
        ("FSCW", "", "scatter"),
        ("Time", "", "time"),
        ("TIME2", "Time MSW", "time"),
        ("HDR-T", "HDR-T", "time"),
        ("Time", "Time (102.40 sec.)", "time"),
        ("HDR-CE", "HDR-CE", "other"),
        ("Event", "Event", "other"),
        ("Width", "Width", "other"),
    ],
)
def test_kind_in_flow_cytometry(channel, marker, kind):
    assert channel_kind(channel, marker, mass=False) == kind


def test_names_stay_unique():
    assert variable_names(["a", "b"], ["", "a"]) == ["a", "a (b)"]
    assert variable_names(["a", "a", "a-2"], ["", "", ""]) == ["a", "a-3", "a-2"]
