"""Every real FCS file that we have, written with clusters and read again."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import flowio
import numpy as np
import pandas as pd
import pytest

from scmoe.io import read_fcs, write_fcs
from scmoe.io._dataset import open_dataset
from scmoe.io._files import open_source

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))
pytestmark = [
    pytest.mark.skipif(
        not DATA.is_dir(),
        reason="real files are looked for in the folder that SCMOE_DATA_DIR names",
    ),
    pytest.mark.filterwarnings("ignore::scmoe.io.FCSRepairWarning"),
]
REFUSED = ("corrupted.fcs", "sample_header.fcs")
FILES = sorted(p for p in DATA.glob("fcs/*/*") if p.is_file() and p.name not in REFUSED)
FILES += sorted(DATA.glob("bodenmiller/H05/*"))[:2]
ONE_OF_EACH = [
    "fcs/fcsparser/FCS3.0_Custom_Compatible.fcs",
    "fcs/fcsparser/FCS_3.0_Fortessa_PBS_Specimen_001_A1_A01.fcs",
    "fcs/fcsparser/Cytek_xP5.fcs",
    "fcs/fcsparser/SG_2014-09-26_Duplicate_Names.fcs",
    "fcs/fcsparser/cyflow_cube_8.fcs",
    "fcs/fcsparser/fcs1_cleaned.lmd",
    "fcs/flowcal/Data001.fcs",
    "fcs/flowio/coulter.lmd",
    "fcs/flowkit/test_comp_example.fcs",
    "fcs/cytoflow_instruments/Applied Biosystems - Attune.fcs",
    "fcs/cytoflow_instruments/Beckman Coulter - Cytomics FC500.LMD",
    "fcs/tidytof/Healthy1_Basal.fcs",
]
# places of segments, counts, and what says whether data were appended
CHANGED = {
    *("par", "tot", "nextdata", "originality"),
    *(f"{end}{what}" for end in ("begin", "end") for what in ("data", "analysis", "stext")),
}


def clustered(path, rows=None):
    """Read a file and cluster its cells by chance."""
    adata = read_fcs(path, dtype="float64")
    rng = np.random.default_rng(0)
    if rows is not None:
        adata = adata[rng.permutation(adata.n_obs)[: max(1, int(rows * adata.n_obs))]].copy()
    labels = rng.integers(0, 12, adata.n_obs)
    adata.obs["scmoe"] = pd.Categorical(labels.astype(str), categories=list(map(str, range(12))))
    adata.obsm["scmoe_proba"] = rng.dirichlet(np.ones(12), adata.n_obs)
    added = np.column_stack([labels, adata.obsm["scmoe_proba"].max(axis=1)])
    return adata, added


def stored(about):
    """Return the bytes of the events."""
    with open_source(about.path) as source:
        raw = source.array(about.place.start, about.place.size)
    return raw.reshape(about.n_events, -1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_written_is_what_was_there(path, tmp_path):
    adata, added = clustered(path, 0.5)
    (new,) = write_fcs(adata, tmp_path / "out")
    back = read_fcs(new, dtype="float64")
    np.testing.assert_array_equal(back.X[:, :-2], adata.X)
    np.testing.assert_array_equal(back.X[:, -2], added[:, 0])
    np.testing.assert_allclose(back.X[:, -1], added[:, 1], atol=5e-7)
    columns = ["channel", "marker", "PnE", "PnG", "PnR"]
    assert back.var[columns].iloc[:-2].equals(adata.var[columns])
    assert list(back.var["channel"][-2:]) == ["scmoe", "scmoe_proba"]

    before, after = open_dataset(path), open_dataset(new)
    assert after.version == before.version
    assert set(after.repairs) <= set(before.repairs)
    assert after.place.layout.columns[:-2] == before.place.layout.columns
    events = stored(before)[adata.obs["event"]]
    np.testing.assert_array_equal(stored(after)[:, : events.shape[1]], events)
    wrong = {f"p{i}b" for i, bits in enumerate(adata.var["PnB"], 1) if bits % 8}
    for key, value in before.keywords.items():
        if key not in CHANGED | wrong:
            assert after.keywords[key].strip() == value.strip(), key
    matrices = [a.uns["fcs"][a.obs["sample"].iloc[0]].get("spillover") for a in (adata, back)]
    assert (matrices[0] is None) == (matrices[1] is None)
    assert matrices[0] is None or matrices[0].equals(matrices[1])


def by_flowio(path):
    with path.open("rb") as handle:
        data = flowio.FlowData(handle, ignore_offset_error=True, nextdata_offset=0)
    return data.as_array()


def by_flowkit(path):
    flowkit = pytest.importorskip("flowkit")
    return flowkit.Sample(path, ignore_offset_error=True).get_events("raw")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("read", [by_flowio, by_flowkit])
def test_others_read_it(name, read, tmp_path):
    adata, added = clustered(DATA / name)
    if "Cytek_xP5" in name:
        with pytest.raises(ValueError, match="cannot reshape"):
            # flowio, and so FlowKit, knows no integers of 24 bits
            read(DATA / name)
        return
    (new,) = write_fcs(adata, tmp_path / "out")
    theirs = read(new)
    # flowio divides in another order where there is a logarithm
    np.testing.assert_allclose(theirs[:, :-2], adata.X, rtol=1e-12)
    np.testing.assert_array_equal(theirs[:, -2], added[:, 0])
    np.testing.assert_allclose(theirs[:, -1], added[:, 1], atol=5e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_fcsparser_reads_it(name, tmp_path):
    fcsparser = pytest.importorskip("fcsparser")
    adata, added = clustered(DATA / name)
    if open_dataset(DATA / name).keywords["byteord"].startswith("4"):
        with pytest.raises(AttributeError, match="newbyteorder"):
            # it asks numpy for what numpy 2 does not have
            fcsparser.parse(DATA / name)
        return
    (new,) = write_fcs(adata, tmp_path / "out")
    _, theirs = fcsparser.parse(new)
    theirs = theirs.to_numpy()
    # it applies neither gain nor logarithm nor time step
    gain = read_fcs(new).var["PnG"].iloc[-1]
    np.testing.assert_array_equal(theirs[:, -2], added[:, 0])
    np.testing.assert_allclose(theirs[:, -1] / gain, added[:, 1], atol=5e-7)
    if "FC500" not in name:
        # of this one it reads the original wrong: integers of 10 bits in words of 16
        _, original = fcsparser.parse(DATA / name)
        np.testing.assert_array_equal(theirs[:, :-2], original)


def test_a_plate_goes_to_flowjo(tmp_path):
    """Through h5ad, concatenated and clustered together: one file for each well."""
    adata = read_fcs(DATA / "bodenmiller" / "H05")
    adata.obs["scmoe"] = pd.Categorical(adata.obs["sample"].cat.codes.astype(str))
    adata.write_h5ad(tmp_path / "x.h5ad")
    paths = write_fcs(ad.read_h5ad(tmp_path / "x.h5ad"), tmp_path / "out", progress=False)
    originals = (DATA / "bodenmiller" / "H05").glob("*.fcs")
    assert sorted(path.name for path in paths) == sorted(path.name for path in originals)
    back = read_fcs(tmp_path / "out", progress=False)
    np.testing.assert_array_equal(back[adata.obs_names].X[:, :-1], adata.X)
    np.testing.assert_array_equal(back[adata.obs_names].X[:, -1], adata.obs["scmoe"].astype(float))
