"""A training in a process of its own, which may be told to hang in the middle.

``python killed.py CHECKPOINT RESULT HANG VERB``: ``HANG`` is an epoch, in the middle of which a
file ``CHECKPOINT.hangs`` appears and the process waits to be killed, or -1; ``VERB`` is ``model``
or ``tl``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import scmoe
from scmoe.similarity import Graph


class Hangs(Callback):
    """Wait for the end in the middle of an epoch."""

    def __init__(self, epoch: int, sign: Path):
        self.epoch, self.sign = epoch, sign

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            self.sign.touch()
            time.sleep(600)


def cells() -> ad.AnnData:
    """300 cells, 6 markers, 3 populations, and a graph of edges within them."""
    from sklearn.neighbors import kneighbors_graph

    rng = np.random.default_rng(0)
    population = rng.integers(0, 3, 300)
    x = np.eye(3)[population].repeat(2, axis=1) * 3 + rng.normal(scale=0.4, size=(300, 6))
    adata = ad.AnnData(
        np.clip(x, 0, None).astype(np.float32),
        var=pd.DataFrame(index=[f"m{i}" for i in range(6)]),
    )
    graph = kneighbors_graph(adata.X, 8)
    adata.obsp["connectivities"] = graph.maximum(graph.T).tocsr().astype(np.float32)
    return adata


def main(checkpoint: str, result: str, hang: str, verb: str) -> None:
    hangs = Hangs(int(hang), Path(f"{checkpoint}.hangs"))
    folder = None if checkpoint == "none" else checkpoint
    common = {"callbacks": [hangs], "batch_size": 50, "accelerator": "cpu", "max_epochs": 5}
    network = {"n_hidden": 16, "n_latent": 4, "batch_norm": True}
    adata = cells()
    if verb == "tl":
        scmoe.tl.cluster(
            adata,
            n_clusters=4,
            checkpoint=folder,
            progress=False,
            model_kwargs=network,
            train_kwargs=common,
        )
        labels = adata.obs["scmoe"]
        state = adata.uns["scmoe"]["model"]["weights"]
        history = adata.uns["scmoe"]["history"]
    else:
        scvi.settings.seed = 3
        # its batches follow the edges of the graph and are drawn by the splitter's own generator
        scmoe.model.MoESimVAE.setup_anndata(adata, similarity=Graph())
        model = scmoe.model.MoESimVAE(adata, 4, **network)
        stopping = {"early_stopping": True, "early_stopping_warmup_epochs": 1, "train_size": 0.8}
        model.train(checkpoint=folder, enable_progress_bar=False, **stopping, **common)
        labels = model.predict()
        state = model.module.state_dict()
        history = pd.concat(model.history.values(), axis=1)
        np.savez(f"{result}.split", model.train_indices, model.validation_indices)
    weights = {name: np.asarray(torch.as_tensor(tensor)) for name, tensor in state.items()}
    np.savez(f"{result}.npz", **weights)
    Path(f"{result}.json").write_text(
        json.dumps({"labels": list(labels), "history": history.astype(float).to_dict()})
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
