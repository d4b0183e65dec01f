from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from scmoe import datasets
from scmoe.datasets import _published, _registry


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(("well", "n_cells"), [("H05", 14_067), ("H08", 13_414)])
def test_bodenmiller(well, n_cells, tmp_path):
    adata = datasets.bodenmiller(well)
    assert adata.shape == (n_cells, 35)
    assert adata.var["surface"].sum() == 10
    assert adata.obs["population"].nunique() == 12
    assert {"cd4+", "nk", "cd14+hladrmid"} <= set(adata.obs["population"].cat.categories)
    assert set(adata.obs["sample"]) == {well}
    assert set(adata.obs["file"]) == set(adata.uns["fcs"])
    assert adata.obs_names.is_unique
    assert adata.X.dtype == np.float32
    adata.write_h5ad(tmp_path / "x.h5ad")


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("well", "nk", "dendritic", "without"), [("H05", 1_923, 40, 18), ("H08", 1_976, 15, 15)]
)
def test_an_event_of_several_gates_is_one_cell(well, nk, dendritic, without):
    adata = datasets.bodenmiller(well)
    assert len(np.unique(adata.X, axis=0)) == adata.n_obs
    population = adata.obs["population"]
    assert (population == "nk").sum() == nk
    assert (population == "dendritic").sum() == dendritic
    assert population.isna().sum() == without
    # gates that share more than half of the smaller one are one population, and no others
    held = adata.obs["gates"].str.get_dummies(" & ")
    assert held.sum().sum() == {"H05": 15_792, "H08": 15_252}[well]  # what the files list
    one_population = {
        pair
        for pair in itertools.combinations(held, 2)
        if held[[*pair]].all(axis=1).sum() > held[[*pair]].sum().min() / 2
    }
    assert one_population == {("cd14+surf-", "nk"), ("cd14-surf-", "nk")}
    assert (population[held["cd14-surf-"] == 1].dropna() == "nk").all()
    # a cell without a population is one of two, and its file is one of its gates
    assert adata.obs["gates"][population.isna()].str.contains(" & ").all()
    gate = adata.obs["file"].str.removeprefix("Staurosporine_").str.removesuffix(f"_{well}")
    assert all(a in b.split(" & ") for a, b in zip(gate, adata.obs["gates"], strict=True))


def test_rows_are_equal_byte_by_byte():
    x = np.array([[2, 1], [1, np.nan], [2, 1], [1, np.nan], [1, 2]], dtype=np.float32)
    first, which = _published._unique_rows(x)
    assert first.tolist() == [0, 1, 4]
    assert which.tolist() == [0, 1, 0, 1, 2]


@pytest.mark.usefixtures("real_data")
def test_multicenter():
    adata = datasets.multicenter(8)
    assert adata.n_vars == 8
    assert adata.obs["population"].nunique() == 4
    assert adata.obs["population"].isna().any()


@pytest.mark.usefixtures("real_data")
def test_samusik_ramp():
    adata = datasets.samusik_ramp()
    assert adata.shape == (10_000, 38)
    assert adata.obs["population"].nunique() == 23


@pytest.mark.usefixtures("real_data")
def test_levine32_balanced():
    adata = datasets.levine32_balanced()
    assert adata.shape == (1_500, 37)
    assert (adata.var["kind"] == "mass").sum() == 32
    assert set(adata.obs["population"].value_counts()) == {100}
    assert adata.obs["population"].isna().sum() == 100


def test_unknown_names():
    with pytest.raises(ValueError, match="H05, H08"):
        datasets.bodenmiller("H99")
    with pytest.raises(ValueError, match="1 to 8"):
        datasets.multicenter(9)


def test_offline(elsewhere):
    with pytest.raises(OSError, match=r"bodenmiller/H05.*github.*SCMOE_DATA_DIR"):
        datasets.bodenmiller()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "load", [datasets.multicenter, datasets.samusik_ramp, datasets.levine32_balanced]
)
def test_what_cannot_be_downloaded(load):
    with pytest.raises(FileNotFoundError, match=r"original is at https.*SCMOE_DATA_DIR"):
        load()


def test_wrong_file(elsewhere):
    folder = elsewhere / "data"
    folder.mkdir()
    (folder / "samusik_ramp.csv.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA256"):
        datasets.samusik_ramp()


def test_download_is_checked_and_cached(tmp_path, monkeypatch, cache):
    source = tmp_path / "source.bin"
    source.write_bytes(b"cells")
    digest = hashlib.sha256(b"cells").hexdigest()
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash, fname))
        path.mkdir(parents=True)
        target = path / fname
        target.write_bytes(source.read_bytes())
        return str(target)

    monkeypatch.delenv("SCMOE_DATA_DIR", raising=False)
    monkeypatch.setattr(_registry.pooch, "retrieve", retrieve)
    entry = {"sha256": digest, "url": "https://example.org/x.bin"}
    monkeypatch.setattr(_registry, "registry", lambda: {"set/x.bin": entry})
    path = _registry.fetch("set/x.bin")
    assert path == cache / "scmoe" / "set" / "x.bin"
    assert calls == [("https://example.org/x.bin", f"sha256:{digest}", "x.bin")]


def test_a_published_md5_is_checked(elsewhere, monkeypatch):
    folder = elsewhere / "data"
    folder.mkdir()
    (folder / "x.gz").write_bytes(b"cells")
    entry = {"md5": hashlib.md5(b"cells").hexdigest(), "url": "https://example.org/x.gz"}
    monkeypatch.setattr(_registry, "registry", lambda: {"x.gz": entry, "y.gz": entry})
    assert _registry.fetch("x.gz") == folder / "x.gz"
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(known_hash)
        return "y.gz"

    monkeypatch.setattr(_registry.pooch, "retrieve", retrieve)
    _registry.fetch("y.gz")
    assert asked == [f"md5:{entry['md5']}"]
    (folder / "x.gz").write_bytes(b"others")
    with pytest.raises(ValueError, match=rf"MD5 is .*not {entry['md5']}"):
        _registry.fetch("x.gz")


def test_registry_is_complete():
    entries = _registry.registry()
    assert sum(name.startswith("bodenmiller/") for name in entries) == 28
    for name, entry in entries.items():
        assert len(entry.get("sha256", "")) == 64 or len(entry["md5"]) == 32
        assert entry["url"] is not None or entry["origin"]
        if name.startswith("bodenmiller/"):
            assert entry["url"].startswith("https://raw.githubusercontent.com/yannabraham/")
