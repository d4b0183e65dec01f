from __future__ import annotations

import re

import pytest

from scmoe.io import read_fcs
from scmoe.io._channels import (
    Kind,
    channel_kinds,
    describe_channel,
    is_mass_cytometer,
    mark_copies,
    variable_names,
)


def test_a_mass_cytometer_is_told_by_a_metal_or_by_its_name():
    metals = [
        "CD4(Nd145)Dd",
        "CD3(110:114)Dd",
        "Nd145Di",
        "145Nd",
        "CD19_Nd142",
        "CD90_Lu176Di",
        "Y89Di",
    ]
    assert [name for name in metals if not is_mass_cytometer(["Time", name])] == []
    cytometers = ("DVSSCIENCES-CYTOF-6.5.358", "Helios", "simulated CyTOF")
    assert [name for name in cytometers if not is_mass_cytometer(["CD3"], name)] == []
    flow = ("FSC-A", "PE-Cy7-A", "V450-A", "Y586-A", "FL1 INT LOG", "L3 450-50", "R660", "CD45")
    assert [name for name in flow if is_mass_cytometer([name], "LSRII")] == []


KINDS_IN_MASS_CYTOMETRY = [
    ("CD4(Nd145)Dd", "CD4", "mass"),
    ("Nd145Di", "145Nd_CD4", "mass"),
    ("CD45_In115", "CD45_In115", "mass"),
    ("Xe131Di", "", "mass"),
    ("Time", "Time", "time"),
    ("Event_length", "", "other"),
    ("BC1(La139)Dd", "BC1", "other"),
    ("Ir191Di", "191Ir_DNA1", "other"),
    ("Ir193Di", "", "other"),
    ("viability_Pt195", "viability_Pt195", "other"),
    ("Pt198Di", "198Pt_Dead", "other"),
    ("empty_I127", "empty_I127", "other"),
    ("beadst_beadDist", "beadst_beadDist", "other"),
    ("population", "", "other"),
    ("Ki67_Sm152", "Ki67_Sm152", "mass"),
    ("CD103_Nd148", "CD103_Nd148", "mass"),
]
KINDS_IN_FLOW_CYTOMETRY = [
    ("FITC-A", "CD3", "fluor"),
    ("PE-A", "", "fluor"),
    ("PE-A", "SSEA-4", "fluor"),
    ("SSC-B-H", "", "scatter"),
    ("SSC1-Height", "405-SSC", "scatter"),
    ("FS INT LIN", "FS INT LIN", "scatter"),
    ("TIME2", "Time MSW", "time"),
    ("Time", "Time (102.40 sec.)", "time"),
    ("HDR-CE", "HDR-CE", "other"),
    ("Event", "Event", "other"),
    # the name of the marker counts more than that of its detector
    ("DAPI-A", "CD8 BV421", "fluor"),
    ("PI-A", "CD4", "fluor"),
    ("Aqua-A", "CD4", "fluor"),
    ("PerCP-Cy5-5-A", "7-AAD", "other"),
    ("LIVE/DEAD Fixable Blue-A", "Blue", "other"),
    ("7-AAD-A", "FL3-A", "other"),
]


@pytest.mark.parametrize("mass", [False, True], ids=["flow", "mass"])
def test_kinds(mass):
    rows = KINDS_IN_MASS_CYTOMETRY if mass else KINDS_IN_FLOW_CYTOMETRY
    channels, markers, _ = zip(*rows, strict=True)
    found = channel_kinds(channels, markers, mass=mass)
    wrong = [(*row, kind) for row, kind in zip(rows, found, strict=True) if kind != row[2]]
    assert wrong == []


def test_kinds_by_the_channels_alone():
    assert channel_kinds(["FSC-A", "CD3", "IR"]) == ["scatter", "fluor", "fluor"]
    assert channel_kinds(["Nd145Di", "IR", "Ir191Di"]) == ["mass", "other", "other"]


# names that cores give, by what the table of `scmoe channels` says of them
FLOW = {
    "viability stain": """
        Viability Dye; LIVE/DEAD Fixable Blue-A; LIVE/DEAD™ Fixable Near-IR-A; L/D; L/D-A; L_D; LD
        LD Aqua; L&D; Live_Dead; LIVEDEAD; LiveDead; Live/Dead NIR; Zombie Aqua; Zombie NIR-A
        ZombieUV; 7-AAD; 7AAD; 7-AAD-A; Comp-7-AAD-A; PI; PI-A; PI (615/30); Propidium Iodide-A
        FVS510; FVS780-A; FVD eFluor 780; eFluor506 viability; Ghost Dye Red 780; SYTOX Blue-A
        Violet Live/Dead; LD-NIR; APC-Cy7 L/D; FVS440UV; Viabilty; vAmine; AViD; SYTOXRed
        Live_Dead_Blue-A
        Aqua; Aqua-A; Amine; Dead; Dead cells; Live; Via-Probe; ViaKrome 808-A; ViaDye Red-A
        viability;7-AAD;695/40@488/A""",
    "DNA stain": "DNA; DNA content; DRAQ5; DRAQ7-A; Hoechst 33342; Hoechst-A; DAPI; DAPI-A",
    "beads": "Beads; CountBeads",
    "barcode": "Barcode 3; barcode",
    "without a stain": "Empty; Blank; Unused6; Autofluorescence",
    "computed": """
        FlowSOM; FlowSOM.metacluster; MetaClusters; Cluster; cluster_id; PhenoGraph; X-shift; tSNE1
        tSNE_2; tSNE-X; opt-SNE 1; viSNE1; UMAP_1; UMAP-X; uMAP_2; TriMap_1; PaCMAP 1; PCA_1; PC1
        bc_separation_dist; mahalanobis_dist; Debarcoded; FileNum; File No.; SampleID; sample_id
        GateSource; gated; label; Population ID; Timepoint; Condition; mixture_proba; louvain
        FlowSOM.meta.k.10; SOM node; Diffusion_1; Treatment; Replicate 2; Experiment ID
        is_gated""",
    "coordinate": "X; Y; x_center; X_centroid; Location_Center_X; Tray X",
    "size or shape": "Area; Eccentricity; Major Axis Length; Aspect Ratio",
    "event or pulse parameter": """
        Event_length; Cell_length; Event #; EventCount; EV; cell_number; Center; Offset; Width
        Residual; Amplitude; Trigger Pulse Width; ROI Bits 1-16; DOUBLET; CellID; HDR-CE""",
    "time": """
        Time; TIME; HDR-T; Time (102.40 sec.); Time_1; 3Time; Timestamp; TIME-A; TLSW; Time [s]
        Acquisition Time""",
    "scatter": "FSC-A; SSC-B-H; VSSC-A; 405-SSC; FSC LogH; FS INT LIN; FSCW; Forward Scatter",
    "fluorescence": """
        LDLR; VISTA; IR; PI-9; PI3K; PI16; PIR-B; DAPK1; CD45_RA; BCL2; BCL6; BC1; BC-11; Ki-67
        TIMD4; TIM-3; TIMP1; CISH; DEAD-box DDX3; EQ; Liver; GATA3; Clusterin; PTEN; PDL1; PD-1
        IRF4; RhoA; ARG1; CSF1R; I-A/I-E; DNAM-1; DNA-PKcs; TIMELESS; AADC; IL-17A; CD137; SSEA-4
        HLA-A; PE-Cy7-A; Pacific Blue-A; AmCyan-A; Alexa Fluor 700-A; AF488-A; PC5; PC7-A; Y2-A
        Y-A; FL1-H; Spark NIR 685-A; APC-R700-A; V450-A; L1 530-30; GRN-HLog; mCherry-A; FL4 red
        Sampler; ID2; STIM1; EMA; EV71; SOM; Labelled-CD3
        CFSE; Annexin V; 488/552nm PECy5.5 (710/40) LogH""",
}
MASS = {
    "viability stain": """
        194Pt_cis; Cis-Pt; cisplatin; Cisplatin_Pt195; 198Pt_LD; Rh103 live; 103Rh_Viability
        198Pt_Dead; CisPt195; Live/Dead_195Pt; Viability1(Pt195)Di""",
    "DNA stain": """
        DNA1; 191Ir_DNA1; DNA1_Ir191; DNA2(Ir193)Di; DNA-1(Ir191)Dd; Ir-Intercalator; 193Ir; Ir191
        Ir193Di; 191-Ir; 103Rh_DNA; IrDNA1""",
    "beads": "140Ce_EQ4_beads; EQBeads; EQ 4 elements; 140Ce_EQ; Bead_Ce140; 140Ce_Bead1",
    "barcode": "105Pd_BC; BC1; Barcode 3; Pd104_barcode; 102Pd_BC102; Pd_BC1; MCB102_Pd102",
    "background of a metal": """
        190BCKG; BCKG190Di; 80ArAr; ArAr80Di; 131Xe_conta; 133Cs_Environ; 208Pb_environ
        138Ba_contamination; BackBa; 138Ba_BackBa; Ar2; 120Sn_Environ""",
    "without a stain": "empty_I127; 157Gd_empty; blank_Nd142; 127I_background",
    "computed": "bc_separation_dist; beadst_beadDist; FlowSOM; tSNE1; FileNum",
    "size or shape": "Area; Eccentricity",
    "event or pulse parameter": "Event_length; Center; Offset; Width; Residual; cell_id",
    "time": "Time; time_ms",
    "metal": """
        89Y_CD45; CD45_194Pt; 150Nd_IR; IR_Nd150; 127I_IdU; LDLR_Nd145; BCL6_Dy163; BCMA_Tm169
        PD-1_Lu175; 175Lu_PDL1; CD103_Nd148; CD110; HIV_Env_Nd144; AR_Nd150; CISH_Nd144; CIS_Nd144
        Env_Gd158; PI_Nd144
        GATA3_167Er; Clusterin_145Nd; Contactin-1_Nd144; DNAM-1_Nd144; DNA-PK_Nd150; PE_165Ho
        CD3(110:114)Dd; CD235_61_In113; FITC_myeloid_Yb171; Histone H3_In113""",
    "metal without the name of a marker": "Xe131Di; 195Pt; Tl203_Tl203Di; Ba138Di; Xe131_Xe131Di",
}


@pytest.mark.parametrize(("table", "mass"), [(FLOW, False), (MASS, True)], ids=["flow", "mass"])
def test_names_of_cores(table, mass):
    detector = "Nd150Di" if mass else "FL5-A"
    wrong = []
    for why, text in table.items():
        names = [name.strip() for name in re.split(r"; |\n", text) if name.strip()]
        for name in names:
            # by the name of the channel, and by that of the marker
            told = {describe_channel(name, "", mass=mass).why}
            if why in ("viability stain", "barcode", "computed", "time"):
                told.add(describe_channel(detector, name, mass=mass).why)
            wrong += [] if told == {why} else [(name, why, told)]
    assert wrong == []


def test_names_of_any_length():
    for word in ("area ", "event ", "i r ", "live a ", "x", "-A", "\n"):
        name = "CD3 " + word * 3000 + "!"
        assert channel_kinds([name], mass=False) == ["fluor"]
        assert mark_copies([name], [""], [Kind("fluor", "")], ["0,0"])[0].kind == "fluor"


def markers_of(path):
    var = read_fcs(path).var
    return list(var["channel"][var["kind"] == "fluor"]), dict(
        zip(var["channel"], var["kind"], strict=True)
    )


ONE_DETECTOR = [
    (["FL1-H", "FL1-A", "FL1-W"], "FL1-A"),
    (["FL1-Height", "FL1-Width"], "FL1-Height"),
    (["FL1-Peak-Lin", "FL1"], "FL1"),
    (["FL1 INT LIN", "FL1 PEAK LIN", "FL1 TOF LIN"], "FL1 INT LIN"),
    (["FITC-A", "Comp-FITC-A", "Comp-FITC-H"], "Comp-FITC-A"),
    (["PE-A", "<PE-A>"], "<PE-A>"),
    (["GRN-HLin", "GRN-ALin"], "GRN-ALin"),
    (["FL1 Log", "FL1 Lin"], "FL1 Lin"),
    (["L3 450-50W", "L3 450-50A"], "L3 450-50A"),
]


def test_measures_of_one_detector_are_one_marker(make_fcs):
    for channels, marker in ONE_DETECTOR:
        events = [range(len(channels) + 2)]
        path = make_fcs(events=events, channels=["FSC-A", *channels, "APC-W"])
        markers, kinds = markers_of(path)
        assert markers == [marker, "APC-W"], channels
        others = {kinds[channel] for channel in channels if channel != marker}
        assert others == {"copy"}, channels


def test_what_stays_the_marker(make_fcs):
    channels = ["FL2-A", "FL2-H", "FL2-W"]
    shape = {"events": [[1, 2, 3]], "channels": channels}
    # a name, or decades, say which one was looked at
    assert markers_of(make_fcs(**shape, markers=["", "CD8 PE", ""]))[0] == ["FL2-H"]
    logarithmic = {"datatype": "I", "keywords": {"$P2E": "4,1"}}
    assert markers_of(make_fcs(**shape, **logarithmic))[0] == ["FL2-H"]
    # the name of another detector, as FACSCalibur gives it, is none
    assert markers_of(make_fcs(**shape, markers=["", "", "FL4-Height"]))[0] == ["FL2-A"]
    # two markers are two, whatever the channels are called
    assert markers_of(make_fcs(**shape, markers=["CD8", "CD4", ""]))[0] == channels
    assert markers_of(make_fcs(**shape, markers=["CD8-A", "CD8-H", ""]))[0] == ["FL2-A"]
    # a stain that is left out takes its height with it
    assert markers_of(make_fcs(**shape, markers=["Viability", "", ""]))[0] == []


def test_copies_of_what_all_files_have(make_fcs):
    a = make_fcs("a.fcs", events=[[1, 2]], channels=["FITC-A", "FITC-H"])
    b = make_fcs("b.fcs", events=[[1, 2]], channels=["PE-A", "FITC-H"])
    with pytest.warns(UserWarning, match="dropped"):
        adata = read_fcs([a, b])
    assert adata.var["kind"].to_dict() == {"FITC-H": "fluor"}


def test_stains_are_in_a_matrix_by_number(make_fcs):
    # $COMP has no names: it is of all detectors, that of the viability stain among them
    path = make_fcs(
        events=[[1, 2, 3, 4]],
        channels=["FSC-A", "FITC-A", "7-AAD-A", "Time"],
        keywords={"$COMP": "2,1,0.25,0,1"},
    )
    (record,) = read_fcs(path).uns["fcs"].values()
    assert list(record["spillover"].index) == ["FITC-A", "7-AAD-A"]


def test_names_stay_unique():
    assert variable_names(["a", "b"], ["", "a"]) == ["a", "a (b)"]
    assert variable_names(["a", "a", "a-2"], ["", "", ""]) == ["a", "a-3", "a-2"]
