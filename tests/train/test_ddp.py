"""Trainings on several devices, here processes that share the work of a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children

import numpy as np
import pytest
import ranks
import torch
from ranks import SETTINGS, clustered

from scmoe.model import CplMixVAE, MoESimVAE, MoEVAE
from scmoe.similarity import DensityTree
from scmoe.train import SimilarBatches

pytestmark = pytest.mark.slow

ONE = {"accelerator": "cpu", "enable_progress_bar": False}
FORK = {**ONE, "devices": 2, "strategy": "ddp_fork"}
"""A fork needs no second import of everything, and takes what a test has patched."""


def model_of(adata, **kwargs):
    torch.manual_seed(0)
    MoESimVAE.setup_anndata(adata, similarity=DensityTree())
    return MoESimVAE(adata, 7, **kwargs)


@pytest.fixture(scope="module")
def launched():
    """A clustering in processes that Lightning starts, as it starts them by default."""
    here = set(os.listdir())
    adata = clustered()
    # scvi-tools would leave its log there
    assert set(os.listdir()) == here
    return adata


def test_processes_for_the_training_alone(launched):
    history = launched.uns["scmoe"]["history"]
    assert len(history) == 4, "20 steps of 5 batches with 128 cells of 600"
    assert history["loss"].between(0.1, 2).all()
    assert launched.obs["scmoe"].nunique() == launched.obs["population"].nunique()
    forked = clustered(train_kwargs={**SETTINGS, "strategy": "ddp_fork"})
    np.testing.assert_array_equal(forked.obsm["X_scmoe"], launched.obsm["X_scmoe"])


def test_processes_from_the_start(launched, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", ranks.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_array_equal(found["codes"], launched.obsm["X_scmoe"])
        history = launched.uns["scmoe"]["history"].to_numpy()
        np.testing.assert_allclose(found["history"], history, rtol=1e-6)
        assert len(found["looks"]) == (rank == 0)
        assert found["sketched"].shape == found["codes"].shape
        assert found["first"] == 0
        assert found["error"] == "this is 0"
        assert "The processes have different cells" in str(found["differ"])
        assert "the processes are running already" in str(found["spawned"])
    first, second = (np.load(tmp_path / f"{rank}.npz")["sketched"] for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    read, _ = MoESimVAE.read_trained(tmp_path / "model")
    assert len(read.names) == 7


@pytest.mark.parametrize("depict_target", ["dec", "released"])
def test_loss_is_that_of_one_process_with_all_batches(blobs, monkeypatch, depict_target):
    # in every term; without noise, which each process has of its own
    adata = blobs[:512].copy()
    settings = {
        "depict_target": depict_target,
        "depict_weight": 1,
        "kl_weight": 1,
        "code_noise": 0,
        "gate_dropout": 0,
    }
    two, one = model_of(adata, **settings), model_of(adata, **settings)
    torch.manual_seed(1)
    two.train(8, batch_size=256, plan_kwargs={"lr": 2e-4}, **FORK)

    def divide(self):
        seed = self.rng.integers(2**31, size=2).tolist()[0]
        self.generator = torch.Generator().manual_seed(seed)

    monkeypatch.setattr(SimilarBatches, "_divide", divide)
    torch.manual_seed(1)
    one.train(8, batch_size=512, plan_kwargs={"lr": 2e-4}, **ONE)
    assert len(one.history["loss_train"]) == 8, "one step an epoch"
    assert set(one.history) == set(two.history)
    for name, values in one.history.items():
        # counted in the batch of a device
        if name not in ("occupied_experts_train", "similar_pairs_train"):
            found, wanted = two.history[name].astype(float), values.astype(float)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
    # that alone learns in no other way
    weights = two.module.encoder.state_dict()
    for name, tensor in one.module.encoder.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_training_that_runs_away(blobs):
    model = model_of(blobs)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    with pytest.raises(ValueError, match=r"diverged.*`lr=0\.9`"):
        model.train(3, batch_size=32, start=False, plan_kwargs={"lr": 0.9}, **FORK)
    assert not model.is_trained
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_interrupted(blobs):
    # as a notebook does it, which tells its own process alone
    model = model_of(blobs)

    def interrupt():
        while not active_children():
            time.sleep(0.1)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.train(100_000, **FORK)
    thread.join()
    assert not active_children()
    assert not model.is_trained


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "ddp"}, "Lightning would run your program once more for each device"),
        (
            {"num_nodes": 2, "strategy": "ddp_spawn"},
            "start the program on all nodes with torchrun",
        ),
        ({"strategy": "deepspeed"}, "`strategy` must be one of ddp, ddp_spawn, ddp_fork"),
        ({"strategy": "ddp_rocket"}, "invalid strategy name"),
        ({"devices": -1}, "no such device"),
        ({"devices": True}, "no such device"),
        ({"early_stopping": True, "train_size": 0.9}, "`early_stopping` needs .* one device"),
        ({"devices": 700}, "700 devices are too many for 600 cells"),
    ],
)
def test_what_several_devices_cannot_do(blobs, settings, message):
    model = model_of(blobs)
    with pytest.raises(ValueError, match=message):
        model.train(**{"accelerator": "cpu", "devices": 2, **settings})
    assert not model.is_trained


@pytest.mark.parametrize("model_class", [MoEVAE, CplMixVAE])
@pytest.mark.parametrize(
    "settings",
    [
        *({"devices": several} for several in (2, -1, [0, 1], "2", True)),
        *({"strategy": "ddp"}, {"num_nodes": 2}),
    ],
)
def test_models_of_one_device(blobs, model_class, settings):
    model_class.setup_anndata(blobs)
    with pytest.raises(
        ValueError, match="trains on one device; only `MoESimVAE` trains on several"
    ):
        model_class(blobs, 3).train(accelerator="cpu", **settings)
