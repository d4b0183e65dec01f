"""Saved models come back to the bit, run nothing, and say what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from safetensors.torch import load_file, save_file

import scmoe
from scmoe._core.files import checksum
from scmoe.model import MODELS, ModelFileError, MoESimVAE, read_trained
from scmoe.model._predict import outputs_of
from scmoe.model._saved import SCHEMA_VERSION, saved_class
from scmoe.similarity import CoAssociation, Custom

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
ARCHIVE = Path(__file__).parent / "archive"


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def trained(adata, **kwargs):
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(adata, similarity=CoAssociation(resolutions=(0.3, 1.0)))
    model = MoESimVAE(adata, 5, **{"n_hidden": 16, "n_latent": 4, **kwargs})
    model.train(8, train_size=0.9, check_val_every_n_epoch=2, **QUIET)
    return model


@pytest.fixture(scope="module")
def model(linked_once):
    before = scvi.settings.seed
    model = trained(linked_once)
    scvi.settings.seed = before
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "m"
    model.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "m")


def load(folder, adata, **kwargs):
    return MoESimVAE.load(folder, adata, accelerator="cpu", **kwargs)


def listing(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# ----------------------------------------------------------------------------------------
# there and back


def test_everything_comes_back(model, saved, linked_once):
    assert sorted(os.listdir(saved)) == ["model.json", "model.safetensors"]
    again = load(saved, linked_once.copy())
    np.testing.assert_array_equal(again.predict(), model.predict())
    np.testing.assert_array_equal(again.predict_proba(), model.predict_proba())
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )
    np.testing.assert_array_equal(again.generate(50).X, model.generate(50).X)
    assert again.history.keys() == model.history.keys()
    for name, table in model.history.items():
        pd.testing.assert_frame_equal(again.history[name], table, check_exact=True)
    for name in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.is_trained
    assert not again.module.training
    assert again.similarity == model.similarity
    assert again.init_params_ == model.init_params_
    assert again.settings == model.settings
    assert again.run_name == model.run_name
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name])


def test_saving_again_gives_the_same_files(saved, linked_once, tmp_path):
    load(saved, linked_once.copy()).save(tmp_path / "again")
    first, second = listing(saved), listing(tmp_path / "again")
    assert first["model.safetensors"] == second["model.safetensors"]
    first, second = (json.loads(x["model.json"]) for x in (first, second))
    for content in (first, second):
        del content["registry"]["_scvi_uuid"], content["sha256"]
    assert first == second


def test_both_learn_on_alike(model, saved, linked_once):
    results = []
    for twin in (deepcopy(model), load(saved, linked_once.copy())):
        torch.manual_seed(5)
        twin.train(2, **QUIET)
        results.append(twin)
    first, second = results
    np.testing.assert_array_equal(first.predict_proba(), second.predict_proba())
    assert len(second.history["loss_train"]) == 10
    for name, table in first.history.items():
        pd.testing.assert_frame_equal(second.history[name], table, check_exact=True)


def test_untrained(linked, tmp_path):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, np.int64(5), n_hidden=8, gate_dropout=np.float32(0.25))
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", linked.copy())
    assert not again.is_trained
    assert again.init_params_["non_kwargs"]["gate_dropout"] == np.float32(0.25)
    again.train(1, **QUIET)


def test_with_the_cells(model, tmp_path):
    model.save(tmp_path / "m", save_anndata=True, compression="gzip")
    assert sorted(os.listdir(tmp_path / "m")) == ["adata.h5ad", "model.json", "model.safetensors"]
    again = MoESimVAE.load(tmp_path / "m", accelerator="cpu")
    np.testing.assert_array_equal(again.predict_proba(), model.predict_proba())
    assert list(again.adata.obs_names) == list(model.adata.obs_names)


def test_prefix(model, tmp_path, linked_once):
    model.save(tmp_path / "m", prefix="best_")
    assert sorted(os.listdir(tmp_path / "m")) == ["best_model.json", "best_model.safetensors"]
    again = load(tmp_path / "m", linked_once.copy(), prefix="best_")
    np.testing.assert_array_equal(again.predict(), model.predict())
    with pytest.raises(ModelFileError, match=r"holds no model: there is no 'model\.json'"):
        load(tmp_path / "m", linked_once.copy())
    with pytest.raises(ValueError, match="`prefix` must be"):
        model.save(tmp_path / "other", prefix="../x")
    with pytest.raises(ValueError, match="`prefix` must be"):
        load(tmp_path / "m", linked_once.copy(), prefix="../m/best_")


def test_loading_leaves_random_numbers_alone(saved, linked_once):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(saved, linked_once.copy())
    assert torch.equal(torch.rand(3), expected)


def test_how_cells_were_registered(model, saved, capsys):
    registry = MoESimVAE.load_registry(saved)
    similarity = model.similarity.to_dict()
    expected = {"layer": None, "batch_key": None, "similarity": similarity}
    assert registry["setup_args"] == expected
    MoESimVAE.view_setup_args(str(saved))
    assert "CoAssociation" in capsys.readouterr().out


def test_versions_and_markers_can_be_read(saved, linked_once):
    content = json.loads((saved / "model.json").read_text())
    assert content["versions"]["scmoe"] == scmoe.__version__
    assert content["versions"]["torch"] == torch.__version__
    assert content["var_names"] == list(linked_once.var_names)
    weights = load_file(saved / "model.safetensors")
    assert {n: list(t.shape) for n, t in weights.items()} == {
        n: t["shape"] for n, t in content["tensors"]["tensors"].items()
    }


@pytest.mark.slow
def test_in_another_process(saved, linked_once, model, tmp_path):
    linked_once.write_h5ad(tmp_path / "cells.h5ad")
    code = (
        "import sys, anndata, numpy; from scmoe.model import MoESimVAE;"
        "model = MoESimVAE.load(sys.argv[1], anndata.read_h5ad(sys.argv[2]), accelerator='cpu');"
        "numpy.save(sys.argv[3], model.predict_proba().to_numpy())"
    )
    paths = [saved, tmp_path / "cells.h5ad", tmp_path / "proba.npy"]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(paths[2]), model.predict_proba())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_of_the_gpu_on_the_cpu(linked, tmp_path):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, 5)
    model.train(2, accelerator="gpu", enable_progress_bar=False)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", linked.copy())
    assert again.device.type == "cpu"
    np.testing.assert_allclose(again.predict_proba(), model.predict_proba(), atol=1e-4)


# ----------------------------------------------------------------------------------------
# models of earlier versions


# of the first version one model, of later ones a folder for each class
ARCHIVED = sorted(path.parent for path in ARCHIVE.glob("v*/**/model.json"))


@pytest.mark.parametrize("place", ARCHIVED, ids=lambda p: str(p.relative_to(ARCHIVE)))
def test_archive(place):
    files = {p.name: p.stat().st_size for p in place.iterdir()}
    assert sum(files.values()) < 120_000
    expected = json.loads((place / "expected.json").read_text())
    adata = AnnData(
        np.array(expected["x"], dtype=np.float32), var=pd.DataFrame(index=expected["markers"])
    )
    model = MODELS[saved_class(place)].load(place, adata, accelerator="cpu")
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert list(model.predict()) == list(expected["labels"])
    assert len(set(expected["labels"])) > 1
    np.testing.assert_allclose(model.predict_proba(), expected["proba"], **close)
    np.testing.assert_allclose(model.get_latent_representation(), expected["latent"], **close)
    np.testing.assert_allclose(model.generate(5).X, expected["generated"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(
        model.history["loss_train"].to_numpy(dtype=float), expected["loss"]
    )
    trained, _ = read_trained(place)
    (found,) = outputs_of(trained.module, adata.X)
    np.testing.assert_allclose(found["proba"], expected["proba"], **close)


def test_the_archive_holds_all_models():
    places = {str(place.relative_to(ARCHIVE)) for place in ARCHIVED}
    assert places >= {"v1", *(f"v{SCHEMA_VERSION}/{name}" for name in MODELS)}
    for place in ARCHIVED:
        content = json.loads((place / "model.json").read_text())
        version = place.relative_to(ARCHIVE).parts[0]
        assert content["schema_version"] == int(version.removeprefix("v"))


# ----------------------------------------------------------------------------------------
# saving: whole or not at all


def test_an_existing_folder(model, folder):
    before = listing(folder)
    with pytest.raises(ValueError, match="exists already"):
        model.save(folder)
    assert listing(folder) == before
    model.save(folder, overwrite=True, save_anndata=True)
    model.save(folder, overwrite=True)
    assert sorted(os.listdir(folder)) == ["model.json", "model.safetensors"]
    assert os.listdir(folder.parent) == ["m"]


def test_a_folder_of_somebody_else(model, folder):
    (folder / "notes.txt").write_text("mine")
    before = listing(folder)
    with pytest.raises(ValueError, match=r"holds 'notes\.txt', which would be lost"):
        model.save(folder, overwrite=True)
    with pytest.raises(ValueError, match=r"'model\.json', 'model\.safetensors', 'notes\.txt'"):
        model.save(folder, prefix="other_", overwrite=True)
    assert listing(folder) == before
    path = folder.parent / "file"
    path.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"exists already|is a file"):
            model.save(path, overwrite=overwrite)
    assert path.read_text() == "mine"


def test_a_failure_leaves_the_old_model(model, folder, monkeypatch):
    before = listing(folder)

    def full(self, path, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(AnnData, "write_h5ad", full)
    with pytest.raises(OSError, match="No space"):
        model.save(folder, overwrite=True, save_anndata=True)
    assert listing(folder) == before
    assert os.listdir(folder.parent) == ["m"]


@pytest.mark.slow
def test_killed_while_saving(folder, linked_once, tmp_path):
    """The process dies with the files half-written: the old model is whole."""
    linked_once.write_h5ad(tmp_path / "cells.h5ad")
    before = listing(folder)
    code = (
        "import os, signal, sys, anndata; from scmoe._core import atomic;"
        "from scmoe.model import MoESimVAE;"
        "model = MoESimVAE.load(sys.argv[1], anndata.read_h5ad(sys.argv[2]), accelerator='cpu');"
        "atomic.flush = lambda path: os.kill(os.getpid(), signal.SIGKILL);"
        "model.save(sys.argv[1], overwrite=True)"
    )
    paths = [folder, tmp_path / "cells.h5ad"]
    done = subprocess.run([sys.executable, "-c", code, *paths], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"save_kwargs": {}}, "can't honour 'save_kwargs'"),
        ({"legacy_mudata_format": True}, "can't honour 'legacy_mudata_format'"),
        ({"datamodule": None}, "can't honour 'datamodule'"),
        ({"compression": "gzip"}, "'compression' needs `save_anndata=True`"),
    ],
)
def test_options_that_cannot_be_honoured(model, tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        model.save(tmp_path / "m", **kwargs)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_named(linked, tmp_path):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, 5)
    model.helper_ = print
    with pytest.raises(ValueError, match="`attributes/helper_` is a builtins"):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------------------
# loading: what is wrong, and nothing changed


class Trap:
    """What a pickle may do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "adata.h5ad", "model.pt"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_do_not_run(model, tmp_path, name, how):
    sprung, folder = tmp_path / "sprung", tmp_path / "m"
    # the trap is a trap
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()
    sprung.unlink()
    model.save(folder, save_anndata=True)
    if name == "model.pt":
        shutil.rmtree(folder)
        folder.mkdir()
    if how == "pickle":
        (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save({"model_state_dict": {}, "attr_dict": Trap(sprung)}, folder / name)
    for action in (
        lambda: MoESimVAE.load(folder, accelerator="cpu"),
        lambda: MoESimVAE.load_registry(folder),
        lambda: MoESimVAE.view_setup_args(folder),
        lambda: MoESimVAE.convert_legacy_save(folder, tmp_path / "new"),
    ):
        reads_all = action.__code__.co_names[1] == "load"
        if name in ("model.safetensors", "adata.h5ad") and not reads_all:
            continue
        with pytest.raises(ModelFileError, match=r"[Pp]ickle|no h5ad file"):
            action()
    assert not sprung.exists()
    assert not (tmp_path / "new").exists()


def edited(folder, edit):
    """Edit the description, with a hash that fits."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    edit(content)
    rest = {k: v for k, v in content.items() if k not in ("schema", "schema_version", "sha256")}
    path.write_text(json.dumps({**content, "sha256": checksum(rest)}))


def replace_tensors(folder, weights):
    """Other tensors, with a hash that fits."""
    path = folder / "model.safetensors"
    save_file(weights, path)
    data = path.read_bytes()

    def edit(content):
        content["tensors"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "tensors": {
                name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
                for name, t in weights.items()
            },
        }

    edited(folder, edit)


def untouched(adata):
    """What loading may write to."""
    return adata.obs.copy(), dict(adata.uns), adata.X.copy()


def refuses(folder, adata, match, error=ModelFileError):
    before = untouched(adata)
    stores = [
        dict(MoESimVAE._setup_adata_manager_store),
        set(MoESimVAE._per_instance_manager_store),
    ]
    with pytest.raises(error, match=match):
        load(folder, adata)
    obs, uns, x = untouched(adata)
    pd.testing.assert_frame_equal(obs, before[0])
    assert uns == before[1]
    np.testing.assert_array_equal(x, before[2])
    assert dict(MoESimVAE._setup_adata_manager_store) == stores[0]
    assert set(MoESimVAE._per_instance_manager_store) == stores[1]


def test_no_folder(linked, tmp_path):
    refuses(tmp_path / "absent", linked, "does not exist")
    (tmp_path / "file").write_text("x")
    refuses(tmp_path / "file", linked, "is a file; a saved model is a folder")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", linked, "holds no model")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_truncated(folder, linked, name):
    data = (folder / name).read_bytes()
    for n in (0, 3, len(data) // 2, len(data) - 1):
        (folder / name).write_bytes(data[:n])
        refuses(folder, linked, "truncated")
    (folder / name).unlink()
    refuses(folder, linked, "holds no model|is missing")


def test_tensors_of_another_model(folder, linked, tmp_path):
    other = trained(linked.copy())
    with torch.no_grad():
        other.module.low += 1
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    refuses(folder, linked, "of another model")


def set_at(*path, value):
    def edit(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return edit


def drop(*path):
    def edit(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return edit


INIT = ("init_params", "non_kwargs")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (set_at("schema", value="other"), "is no scmoe model: its schema is 'other'"),
        (set_at("schema_version", value=4), "newer scmoe"),
        (set_at("schema_version", value=0), "unknown version 0"),
        (set_at("class", value="SCVI"), "of the class 'SCVI', not 'MoESimVAE'"),
        (drop("registry"), r"lacks the keys \['registry'\]"),
        (set_at("further", value=1), r"has \['further'\] beside"),
        (set_at("var_names", value="CD3"), "'var_names' must be list, it is str"),
        (set_at("var_names", value=[1, 2]), "names of markers must be strings"),
        (set_at("has_cells", value=1), "'has_cells' must be bool"),
        (set_at("attributes", value={"!": "os.system"}), "unknown kind of value 'os.system'"),
        (set_at("attributes", value={"!": "tuple", "items": []}), "'attributes' is no mapping"),
        (drop("attributes", "cluster_names_"), r"lack \['cluster_names_'\]"),
        (set_at("attributes", "train_", value=1), r"have \['train_'\] beside"),
        (set_at("attributes", "is_trained_", value="yes"), "'is_trained_' .* wrong type"),
        (set_at("attributes", "is_trained_", value=None), "'is_trained_' .* wrong type"),
        (set_at("attributes", "history_", value=[1]), "'history_' .* wrong type"),
        (set_at("attributes", "history_", value={"a": 1}), "'history_' .* wrong type"),
        (set_at("attributes", "train_indices_", value=[1]), "'train_indices_' .* wrong type"),
        (set_at("attributes", "cluster_names_", value=[1] * 5), "'cluster_names_' .* wrong type"),
        (set_at("attributes", "cluster_names_", value=["a"]), "5 experts and 1 names"),
        (set_at("attributes", "module_settings_", value={}), "'module_settings_' .* wrong type"),
        (drop("attributes", "module_settings_", "kl"), "'module_settings_' .* wrong type"),
        (set_at("init_params", value={}), r"lacks the keys \['kwargs', 'non_kwargs'\]"),
        (drop(*INIT, "kl"), r"settings of the model lack \['kl'\]"),
        (set_at(*INIT, "kernel", value=1), r"have \['kernel'\] beside"),
        (set_at(*INIT, "n_latent", value="4"), "settings .*are damaged"),
        (set_at(*INIT, "n_latent", value=6), r"tensor '.*' is float32 of shape"),
        (set_at(*INIT, "n_latent", value=10**14), "settings .*are damaged"),
        (set_at(*INIT, "means", value="learned"), "tensors that the file lacks: 'centres'"),
        (drop("registry", "setup_args"), r"lacks the keys \['setup_args'\]"),
        (drop("registry", "setup_args", "similarity"), "`setup_anndata` takes"),
        (set_at("registry", "setup_args", "copy", value=1), "`setup_anndata` takes"),
        (set_at("registry", "model_name", value="SCVI"), "registered for another model"),
        (set_at("registry", "setup_method_name", value="__init__"), "registered for another"),
        (set_at("registry", "field_registries", "X", value=3), "field 'X' of the registry"),
        (drop("registry", "field_registries", "X", "state_registry"), "field 'X' of the registry"),
        (
            set_at("registry", "setup_args", "similarity", "shape", value=1),
            "settings .*are damaged",
        ),
        (drop("tensors", "sha256"), r"lacks the keys \['sha256'\]"),
        (set_at("tensors", "sha256", value="0" * 64), "damaged, or of another model"),
        (set_at("tensors", "tensors", value={}), "holds other tensors than its record"),
    ],
)
def test_a_description_that_is_wrong(folder, linked, edit, match):
    edited(folder, edit)
    refuses(folder, linked, match)


def test_settings_that_the_model_refuses(folder, linked):
    edited(folder, set_at(*INIT, "kl", value="none"))
    refuses(folder, linked, "`kl` must be", ValueError)
    edited(folder, set_at("registry", "setup_args", "similarity", value={"name": "os.system"}))
    refuses(folder, linked, "Unknown similarity", ValueError)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop("low"), "tensors that the file lacks: 'low'"),
        (lambda w: w.update(further=torch.ones(1)), "tensors that the model lacks: 'further'"),
        (lambda w: w.update(low=torch.ones(3)), r"'low' is float32 of shape \[3\] in the file"),
        (lambda w: w.update(low=w["low"].double()), r"'low' is float64 .* float32 of shape \[8\]"),
    ],
)
def test_tensors_that_do_not_fit(folder, linked, change, match):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    replace_tensors(folder, weights)
    refuses(folder, linked, match)


def test_a_digit_that_fell_over(folder, linked):
    path = folder / "model.json"
    text = path.read_text()
    path.write_text(text.replace('"gate_dropout": 0.1', '"gate_dropout": 0.7'))
    assert path.read_text() != text
    refuses(folder, linked, "it is damaged")


def test_a_large_description(folder, linked, monkeypatch):
    monkeypatch.setattr("scmoe._core.files.MAX_JSON", 1000)
    refuses(folder, linked, "at most 1,000 are read")


def test_names_in_the_file_import_nothing(folder, linked, tmp_path, monkeypatch):
    (tmp_path / "trap_in_file.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('sprung').touch()\n"
        "def near(cells):\n    return cells[:, None] == cells\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    similarity = {"name": "Custom", "function": "trap_in_file:near"}
    edited(folder, set_at("registry", "setup_args", "similarity", value=similarity))
    model = load(folder, linked)
    assert len(model.predict()) == 600
    with pytest.raises(ValueError, match="no name is looked up"):
        model.train(1, **QUIET)
    assert not (tmp_path / "sprung").exists()
    model.similarity = Custom(lambda cells: (cells[:, None] + cells) % 2 == 0)
    model.train(1, **QUIET)
    assert model.registry["setup_args"]["similarity"] == model.similarity.to_dict()


# ----------------------------------------------------------------------------------------
# cells that do not fit


def test_no_cells(folder):
    with pytest.raises(ModelFileError, match=r"saved without its cells\. Give cells as `adata`"):
        MoESimVAE.load(folder, accelerator="cpu")
    edited(folder, set_at("has_cells", value=True))
    with pytest.raises(ModelFileError, match=r"adata\.h5ad' is missing"):
        MoESimVAE.load(folder, accelerator="cpu")
    (folder / "adata.h5ad").write_bytes(b"no h5ad")
    with pytest.raises(ModelFileError, match="is no h5ad file"):
        MoESimVAE.load(folder, accelerator="cpu")


def test_other_cells(saved, linked):
    refuses(saved, linked[:, 1:].copy(), "missing: 'CD3'", KeyError)
    refuses(saved, linked[:, ::-1].copy(), "another order", ValueError)
    bad = linked.copy()
    bad.X[3, 2] = np.nan
    refuses(saved, bad, "NaN", ValueError)
    with pytest.raises(ValueError, match="`adata` must be an AnnData, got bool"):
        load(saved, False)


def test_a_failure_does_not_harm_a_model_that_lives(linked, tmp_path):
    """The same cells, registered for a model that goes on being used."""
    model = trained(linked)
    expected = model.predict_proba()
    model.save(tmp_path / "m")
    edited(tmp_path / "m", set_at(*INIT, "n_latent", value=6))
    refuses(tmp_path / "m", linked, "tensor")
    np.testing.assert_array_equal(model.predict_proba(), expected)
    model.train(1, **QUIET)
