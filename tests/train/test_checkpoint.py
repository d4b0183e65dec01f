"""A training that was killed goes on, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from scmoe._core.files import checksum
from scmoe.model import ModelFileError, MoESimVAE
from scmoe.similarity import Blend, CoAssociation, DensityTree, Graph, Knn, Labels, Prior
from scmoe.tl import cluster

SCRIPT = Path(__file__).with_name("killed.py")
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


class Fails(Callback):
    """Break in the middle of an epoch, or never."""

    def __init__(self, epoch=-1):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise RuntimeError("the plug was pulled")


def build(adata, seed=0, similarity=None, **kwargs):
    if seed is not None:
        scvi.settings.seed = seed
    MoESimVAE.setup_anndata(adata, similarity=similarity or CoAssociation())
    return MoESimVAE(adata, kwargs.pop("n_experts", 4), n_hidden=16, **kwargs)


def train(model, fails=-1, **kwargs):
    kwargs = {"max_epochs": 5, "batch_size": 100, "callbacks": [Fails(fails)], **QUIET, **kwargs}
    if fails < 0:
        model.train(**kwargs)
    else:
        with pytest.raises(RuntimeError, match="plug"):
            model.train(**kwargs)
    return model


def assert_equal(model, expected):
    for (name, left), right in zip(
        model.module.state_dict().items(), expected.module.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    assert model.history.keys() == expected.history.keys()
    for name, table in model.history.items():
        pd.testing.assert_frame_equal(table, expected.history[name], check_exact=True)
    np.testing.assert_array_equal(model.predict(), expected.predict())


# ----------------------------------------------------------------------------------------
# SIGKILL


def start(*args):
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, args)])


def result(path):
    with np.load(f"{path}.npz") as weights:
        return dict(weights), json.loads(Path(f"{path}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["model", "tl"])
def test_sigkill_in_the_middle_of_an_epoch(tmp_path, verb):
    folder, sign = tmp_path / "run", tmp_path / "run.hangs"
    process = start(folder, tmp_path / "never", 3, verb)
    try:
        end = time.monotonic() + 120
        while not (sign.exists() and (folder / "epoch-000003").is_dir()):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < end, "the training did not reach its fourth epoch"
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "never.json").exists()
    sign.unlink()

    assert start(folder, tmp_path / "resumed", -1, verb).wait() == 0
    assert not folder.exists()
    assert start("none", tmp_path / "whole", -1, verb).wait() == 0
    (weights, rest), (expected, expected_rest) = (
        result(tmp_path / name) for name in ("resumed", "whole")
    )
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(weights[name], tensor, err_msg=name)
    assert rest == expected_rest
    assert len(set(rest["labels"])) > 1
    assert len(rest["history"]["loss_train" if verb == "model" else "loss"]) == 5
    if verb == "model":
        with (
            np.load(tmp_path / "resumed.split.npz") as a,
            np.load(tmp_path / "whole.split.npz") as b,
        ):
            for name in b.files:
                np.testing.assert_array_equal(a[name], b[name])


# ----------------------------------------------------------------------------------------
# the same in one process


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"train_size": 0.7, "validation_size": 0.2, "check_val_every_n_epoch": 2},
        {"max_epochs": None, "max_steps": 27},
        {"checkpoint_every": 2},
        {
            "train_size": 0.8,
            "early_stopping": True,
            "early_stopping_patience": 3,
            "early_stopping_min_delta": 1.0,
            "early_stopping_warmup_epochs": 1,
            "max_epochs": 9,
        },
        {"accumulate_grad_batches": 4},
    ],
)
def test_goes_on_as_if_nothing_had_been(linked, tmp_path, kwargs):
    checkpoint = {"checkpoint": tmp_path / "run"}
    every = {"checkpoint_every": kwargs.pop("checkpoint_every", 1)}
    expected = train(build(linked.copy()), **kwargs)
    broken = train(build(linked.copy()), 3, **kwargs, **checkpoint, **every)
    assert not broken.is_trained
    written = sorted(os.listdir(tmp_path / "run"))
    assert written == (
        ["epoch-000002"] if every["checkpoint_every"] == 2 else ["epoch-000002", "epoch-000003"]
    )
    resumed = train(build(linked.copy()), **kwargs, **checkpoint, **every)
    assert_equal(resumed, expected)
    assert resumed.trainer.current_epoch == expected.trainer.current_epoch > 3
    loops = (model.trainer.fit_loop.state_dict() for model in (resumed, expected))
    assert next(loops) == next(loops)
    np.testing.assert_array_equal(resumed.train_indices, expected.train_indices)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("similarity", "kwargs"),
    [
        # batches by chance, from torch's generator
        (Knn(use_rep="X"), {}),
        # batches and pairs from the generator of the splitter
        (Graph(), {}),
        (Blend(Labels("population"), Graph()), {}),
        # batches by groups, from which the model starts
        (DensityTree(), {}),
        (DensityTree(), {"train_size": 0.7}),
        # some cells only, and listed pairs
        (Prior(use_rep="prior"), {"train_size": 0.7}),
    ],
)
def test_whoever_draws_the_batches(linked, tmp_path, similarity, kwargs):
    linked.obsm["prior"] = pd.get_dummies(linked.obs["population"], dtype=float)
    linked.obsm["prior"].iloc[::3] = 0.0
    linked.obs.loc[linked.obs_names[::3], "population"] = np.nan

    def start():
        return build(linked.copy(), similarity=similarity, n_experts=6)

    expected = train(start(), **kwargs)
    train(start(), 3, checkpoint=tmp_path / "run", **kwargs)
    assert_equal(train(start(), checkpoint=tmp_path / "run", **kwargs), expected)


def test_listed_pairs_of_large_batches(linked, tmp_path, monkeypatch):
    monkeypatch.setattr("scmoe.similarity._base.MAX_DENSE", 64)
    expected = train(build(linked.copy()))
    train(build(linked.copy()), 3, checkpoint=tmp_path / "run")
    assert_equal(train(build(linked.copy()), checkpoint=tmp_path / "run"), expected)


def test_further_training_of_a_loaded_model(linked, tmp_path):
    train(build(linked)).save(tmp_path / "m")

    def again(fails=-1, **kwargs):
        scvi.settings.seed = 1
        model = MoESimVAE.load(tmp_path / "m", linked.copy(), accelerator="cpu")
        return train(model, fails, **kwargs)

    expected = again()
    again(2, checkpoint=tmp_path / "run")
    resumed = again(checkpoint=tmp_path / "run")
    assert_equal(resumed, expected)
    assert len(resumed.history["loss_train"]) == 10


def test_broken_twice(linked, tmp_path):
    expected = train(build(linked.copy()))
    for fails in (2, 3, 3):
        train(build(linked.copy()), fails, checkpoint=tmp_path / "run")
    assert_equal(train(build(linked.copy()), checkpoint=tmp_path / "run"), expected)


def test_nothing_is_done_twice(linked, tmp_path):
    """Epochs of the checkpoint are not trained again, those after it are."""
    seen = []

    class Sees(Fails):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(trainer.current_epoch)

    kwargs = {"checkpoint": tmp_path / "run", "max_epochs": 5, "batch_size": 100, **QUIET}
    with pytest.raises(RuntimeError, match="plug"):
        build(linked.copy()).train(callbacks=[Sees(3)], **kwargs)
    assert seen == [0, 1, 2, 3]
    model = build(linked.copy())
    model.train(callbacks=[Sees()], **kwargs)
    assert seen == [0, 1, 2, 3, 3, 4]
    assert model.trainer.global_step == 5 * 6


def test_without_a_seed_it_goes_on_too(linked, tmp_path, monkeypatch):
    torch.seed()
    assert torch.initial_seed() >= 2**32
    train(build(linked.copy(), seed=None), 3, checkpoint=tmp_path / "run")
    torch.seed()
    model = train(build(linked.copy(), seed=None), checkpoint=tmp_path / "run")
    assert list(model.history["loss_train"].index) == [0, 1, 2, 3, 4]


def test_same_seed_same_split(linked):
    """Cells kept aside follow torch's generator where scvi-tools has no seed."""
    splits = []
    for seed in (0, 0, 1):
        scvi.settings._seed = None
        torch.manual_seed(seed)
        model = train(build(linked.copy(), seed=None), max_epochs=1, train_size=0.5)
        splits.append(list(model.validation_indices))
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]
    assert len(splits[0]) == 300


def test_done_means_removed(linked, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(build(linked), checkpoint=tmp_path / "run")
    assert os.listdir(tmp_path / "run") == ["notes.txt"]
    # and the same call again gives a trained model
    again = train(build(linked), checkpoint=tmp_path / "run")
    assert again.is_trained


def test_killed_while_removing(linked, tmp_path, monkeypatch):
    """What is left has no name of a checkpoint: it is not taken for a damaged one."""
    with monkeypatch.context() as m:
        m.setattr("scmoe._core.atomic.shutil.rmtree", lambda *args, **kwargs: None)
        train(build(linked.copy()), checkpoint=tmp_path / "run")
    assert {name[0] for name in os.listdir(tmp_path / "run")} == {"."}
    model = train(build(linked.copy()), checkpoint=tmp_path / "run")
    assert_equal(model, train(build(linked.copy())))
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------
# other trainings


@pytest.fixture(scope="module")
def broken(linked_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken") / "run"
    before = scvi.settings.seed
    train(build(linked_once.copy()), 3, checkpoint=folder)
    scvi.settings.seed = before
    return folder


@pytest.mark.parametrize(
    ("build_kwargs", "train_kwargs", "told"),
    [
        ({"seed": 1}, {}, r"seed \(checkpoint: 0, now: 1\)"),
        ({"n_experts": 5}, {}, r"n_experts \(checkpoint: 4, now: 5\)"),
        ({"kl_weight": 0.5}, {}, r"are: kl_weight \(checkpoint: 0\.01, now: 0\.5\)\. Name"),
        ({}, {"max_epochs": 6}, r"are: max_epochs \(checkpoint: 5, now: 6\)\. Name another"),
        ({}, {"batch_size": 99}, r"are: batch_size \(checkpoint: 100, now: 99\)\."),
        ({}, {"plan_kwargs": {"lr": 0.1}}, r"plan_kwargs \(checkpoint: {}, now: {lr: 0\.1}\)"),
        ({}, {"gradient_clip_val": 1.0}, r"gradient_clip_val \(checkpoint: None, now: 1\.0\)"),
        ({}, {"callbacks": []}, r"callbacks \(checkpoint: .*Fails\], now: \[\]\)"),
    ],
)
def test_a_checkpoint_of_other_settings(
    linked, broken, tmp_path, build_kwargs, train_kwargs, told
):
    folder = shutil.copytree(broken, tmp_path / "run")
    model = build(linked, **build_kwargs)
    kwargs = {"max_epochs": 5, "batch_size": 100, "callbacks": [Fails()], **QUIET, **train_kwargs}
    with pytest.raises(ValueError, match=rf"is of another training; not the same .*{told}"):
        model.train(checkpoint=folder, **kwargs)
    assert sorted(os.listdir(folder)) == ["epoch-000002", "epoch-000003"]
    assert not model.is_trained


@pytest.mark.parametrize("what", ["cells", "markers", "similarity"])
def test_a_checkpoint_of_other_data(linked, broken, tmp_path, what):
    folder = shutil.copytree(broken, tmp_path / "run")
    if what == "cells":
        linked.X[5, 3] += 1e-3
    elif what == "markers":
        linked.var_names = [*linked.var_names[:-1], "CD16"]
    else:
        graph = linked.obsp["connectivities"].tolil()
        graph[:200, :200] = 0
        linked.obsp["connectivities"] = graph.tocsr()
    with pytest.raises(ValueError, match=rf"not the same are: .*{what}"):
        train(build(linked), checkpoint=folder)


def test_what_changes_nothing_may_change(linked, broken, tmp_path):
    folder = shutil.copytree(broken, tmp_path / "run")
    model = train(build(linked), checkpoint=folder, checkpoint_every=3, enable_progress_bar=True)
    assert len(model.history["loss_train"]) == 5


# ----------------------------------------------------------------------------------------
# damage


def test_killed_while_writing(linked, broken, tmp_path):
    """A half-written checkpoint has another name; it is not looked at, and goes in the end."""
    folder = shutil.copytree(broken, tmp_path / "run")
    half = folder / ".scmoe-1234abcd.part"
    half.mkdir()
    (half / "checkpoint.json").write_text('{"schema": "scmoe che')
    expected = train(build(linked.copy()))
    assert_equal(train(build(linked.copy()), checkpoint=folder), expected)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["checkpoint.json", "checkpoint.safetensors"])
@pytest.mark.parametrize("how", ["truncated", "changed", "absent"])
def test_the_newest_is_damaged(linked, broken, tmp_path, name, how):
    folder = shutil.copytree(broken, tmp_path / "run")
    path = folder / "epoch-000003" / name
    data = path.read_bytes()
    path.write_bytes(
        data[:-30] if how == "truncated" else data[:-9].replace(b"1", b"2") + data[-9:]
    )
    if how == "absent":
        path.unlink()
    with pytest.warns(
        UserWarning, match=r"(truncated|damaged|missing).* goes on from 'epoch-000002'"
    ):
        model = train(build(linked.copy()), checkpoint=folder)
    assert_equal(model, train(build(linked.copy())))


def test_all_are_damaged(linked, broken, tmp_path):
    folder = shutil.copytree(broken, tmp_path / "run")
    for path in folder.glob("*/checkpoint.safetensors"):
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    model = build(linked)
    with pytest.raises(ModelFileError, match=r"No checkpoint .* can be read; .*delete the folder"):
        train(model, checkpoint=folder)
    assert not model.is_trained


def edited(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    rest = {k: v for k, v in content.items() if k not in ("schema", "schema_version", "sha256")}
    path.write_text(json.dumps({**content, "sha256": checksum(rest)}))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda c: c.update(schema="scmoe model"), "is no scmoe checkpoint"),
        (lambda c: c.update(schema_version=99), "newer scmoe"),
        (lambda c: c.pop("seed"), r"lacks the keys \['seed'\]"),
        (lambda c: c["state"].pop("random"), "lacks a part of the state"),
        (lambda c: c["state"]["fit"].pop("loops"), "damaged: KeyError"),
        (lambda c: c["state"]["random"].pop("torch"), "damaged: KeyError"),
        (lambda c: c["state"]["plan"].popitem(), r"damaged: RuntimeError.*Missing key"),
    ],
)
def test_edited_by_hand(linked, broken, tmp_path, edit, match):
    folder = shutil.copytree(broken, tmp_path / "run")
    shutil.rmtree(folder / "epoch-000002")
    edited(folder / "epoch-000003" / "checkpoint.json", edit)
    model = build(linked)
    with pytest.raises(ModelFileError, match=match):
        train(model, checkpoint=folder)
    assert not model.is_trained


def test_a_pickle_does_not_run(linked, broken, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    folder = shutil.copytree(broken, tmp_path / "run")
    for path in folder.glob("*/*"):
        path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelFileError, match="is a pickle"):
        train(build(linked), checkpoint=folder)
    assert not (tmp_path / "sprung").exists()


# ----------------------------------------------------------------------------------------
# what can't be


class Remembers(Fails):
    def state_dict(self):
        return {"thing": object()}


def test_a_callback_with_a_state_that_cannot_be_written(linked, tmp_path):
    with pytest.raises(ValueError, match=r"state/fit/callbacks/Remembers/thing` is a builtins"):
        train(build(linked), checkpoint=tmp_path / "run", callbacks=[Remembers()])
    assert list((tmp_path).rglob("*.part")) == []


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"checkpoint_every": 0}, "`checkpoint_every` must be"),
        ({"checkpoint_every": 1.5}, "`checkpoint_every` must be"),
        ({"checkpoint_every": True}, "`checkpoint_every` must be"),
        ({"enable_checkpointing": True}, "'enable_checkpointing' would read pickles"),
        ({"ckpt_path": "x.ckpt"}, "'ckpt_path' would read pickles"),
        (
            {"callbacks": [scvi.train.SaveCheckpoint(monitor="validation_loss")]},
            "'SaveCheckpoint' would",
        ),
    ],
)
def test_what_cannot_go_together(linked, tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        train(build(linked), checkpoint=tmp_path / "run", **kwargs)
    assert not (tmp_path / "run").exists()


def test_another_logger(linked, tmp_path):
    with pytest.raises(ValueError, match="default logger"):
        train(build(linked), checkpoint=tmp_path / "run", logger=CSVLogger(tmp_path / "logs"))


def test_a_file_is_no_folder(linked, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        train(build(linked), checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_cluster_goes_on(linked, tmp_path):
    common = {"progress": False, "n_clusters": 4, "checkpoint": tmp_path / "run"}
    settings = {"max_epochs": 4, "batch_size": 100, "accelerator": "cpu"}

    def run(adata, fails, **kwargs):
        cluster(
            adata, train_kwargs={**settings, "callbacks": [Fails(fails)]}, **{**common, **kwargs}
        )

    whole = linked.copy()
    run(whole, -1, checkpoint=None)
    with pytest.raises(RuntimeError, match="plug"):
        run(linked, 2)
    assert (tmp_path / "run" / "epoch-000002").is_dir()
    with pytest.raises(ValueError, match=r"seed \(checkpoint: 0, now: 7\)"):
        run(linked, -1, random_state=7)
    run(linked, -1)
    assert list(linked.obs["scmoe"]) == list(whole.obs["scmoe"])
    np.testing.assert_array_equal(linked.obsm["scmoe_proba"], whole.obsm["scmoe_proba"])
    assert not (tmp_path / "run").exists()


def test_two_are_kept(linked, tmp_path):
    seen = []

    class Looks(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(sorted(p.name for p in (tmp_path / "run").glob("*")))

    train(build(linked), checkpoint=tmp_path / "run", callbacks=[Looks()])
    names = [f"epoch-{i:06d}" for i in range(5)]
    assert seen == [[], names[1:2], names[1:3], names[2:4], names[3:5]]
