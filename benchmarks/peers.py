"""Other clustering methods, each with its usual settings.

Every clustering takes cells x markers (arcsinh values, float32), a seed and the number of clusters
(None for its own default; those that choose the number themselves ignore it), and returns one
label for each cell.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans, kmeans_plusplus
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_predict

N_CLUSTERS = 15
"""Where the user has to say a number: the paper's for the Bodenmiller wells."""

WARD_LIMIT = 30_000
CYTOVI_STEPS = 6_000
FOLDS = 5


def flowsom(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by FlowSOM with its default 10 x 10 grid and a given number of metaclusters."""
    # its import lets torch use all cores again, whatever OMP_NUM_THREADS says
    threads = torch.get_num_threads()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import flowsom as fs

        cells = ad.AnnData(x.astype(np.float64))
        cells.var_names = [f"m{i}" for i in range(x.shape[1])]
        result = fs.FlowSOM(
            cells,
            cols_to_use=list(cells.var_names),
            n_clusters=n_clusters or N_CLUSTERS,
            seed=seed,
        )
    torch.set_num_threads(threads)
    return result.get_cell_data().obs["metaclustering"].to_numpy().astype(str)


def phenograph(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by PhenoGraph with 30 neighbours, its default; it chooses the number."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # it leaves files behind where it runs
    ):
        warnings.simplefilter("ignore")
        import phenograph as pg

        labels, _, _ = pg.cluster(x, k=30, seed=seed, n_jobs=1)
    return labels.astype(str)


def leiden(
    x: np.ndarray, seed: int, n_clusters: int | None = None, resolution: float = 1.0
) -> np.ndarray:
    """Cluster by Leiden on the default graph of scanpy; it chooses the number."""
    cells = ad.AnnData(x)
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    sc.tl.leiden(cells, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2)
    return cells.obs["leiden"].to_numpy().astype(str)


def louvain(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by Louvain at resolution 1 on the default graph of scanpy; it chooses the number."""
    from sknetwork.clustering import Louvain

    cells = ad.AnnData(x)
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    labels = Louvain(random_state=seed).fit_predict(cells.obsp["connectivities"])
    return labels.astype(str)


def k_means(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by k-means, the best of 10 starts."""
    model = KMeans(n_clusters or N_CLUSTERS, n_init=10, random_state=seed)
    return model.fit_predict(x).astype(str)


def gaussian_mixture(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by a Gaussian mixture with a full covariance for each component."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(n_clusters or N_CLUSTERS, random_state=seed).fit(x)
    return model.predict(x).astype(str)


def cytovi(
    x: np.ndarray, seed: int, n_clusters: int | None = None, resolution: float = 1.0
) -> np.ndarray:
    """Cluster by Leiden on the graph of the codes of CytoVI; it chooses the number.

    As in the tutorial of scvi-tools: markers scaled to 0-1, every default. Training ends after
    1,000 epochs there, or when the loss of held-out cells has not fallen for 30; here also after
    6,000 steps, and the weight of the KL divergence grows over 0.4 of the epochs as it does there.
    """
    scvi.settings.seed = seed
    cells = ad.AnnData(x)
    cells.layers["transformed"] = cells.X
    scvi.external.cytovi.scale(cells)
    n_steps = math.ceil(0.9 * len(x) / 128)
    epochs = min(1_000, math.ceil(CYTOVI_STEPS / n_steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.external.CYTOVI.setup_anndata(cells, layer="scaled")
        model = scvi.external.CYTOVI(cells)
        model.train(
            max_epochs=epochs,
            n_epochs_kl_warmup=math.ceil(0.4 * epochs),
            accelerator="cpu",
            enable_progress_bar=False,
        )
    return leiden(model.get_latent_representation(), seed, resolution=resolution)


def told(x: np.ndarray, truth: np.ndarray, seed: int, least: int) -> np.ndarray:
    """Classify by a random forest that is given the labels: an upper bound, no peer.

    Parameters
    ----------
    x
        Cells x markers.
    truth
        Population of each cell; NaN where it has none.
    seed
        Of the folds and the trees.
    least
        Cells of the populations that it is to know.

    Returns
    -------
    Of each cell of such a population the label by the forest that has learned from the other
    folds; None for the others.
    """
    sizes = pd.Series(truth).value_counts()
    known = np.flatnonzero(pd.Series(truth).isin(sizes.index[sizes >= least]))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    found = np.full(len(x), None, dtype=object)
    found[known] = cross_val_predict(
        RandomForestClassifier(random_state=seed), x[known], truth[known].astype(str), cv=folds
    )
    return found


def hdbscan(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster by HDBSCAN with its defaults; it chooses the number and is deterministic.

    Cells that it calls noise go to the cluster with the nearest centroid, as in the paper.
    """
    return assign_noise(x, HDBSCAN(copy=True).fit_predict(x)).astype(str)


def assign_noise(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return labels with -1 (noise) replaced by the cluster with the nearest centroid.

    Where all is noise there is one cluster.
    """
    clusters = np.unique(labels[labels >= 0])
    if not len(clusters):
        return np.zeros_like(labels)
    centroids = np.array([x[labels == k].mean(axis=0) for k in clusters])
    nearest = clusters[pairwise_distances_argmin(x, centroids)]
    return np.where(labels < 0, nearest, labels)


def ward(x: np.ndarray, seed: int, n_clusters: int | None = None) -> np.ndarray:
    """Cluster hierarchically by Ward linkage; it is deterministic.

    Raises
    ------
    ValueError
        More than 30,000 cells: the distances of all pairs are held in memory.
    """
    if len(x) > WARD_LIMIT:
        raise ValueError(f"Ward linkage of {len(x)} cells needs too much memory.")
    return AgglomerativeClustering(n_clusters or N_CLUSTERS).fit_predict(x).astype(str)


def memberships(x: np.ndarray, centres: np.ndarray, fuzzifier: float) -> np.ndarray:
    r"""Return the memberships of fuzzy c-means, ``(n, k)``; rows sum to 1.

    .. math:: u_{ik} = d_{ik}^{-2/(m-1)} / \sum_l d_{il}^{-2/(m-1)}

    with :math:`d` the Euclidean distance to the centre and :math:`m` the fuzzifier.
    """
    squared = pairwise_distances(x, centres, metric="sqeuclidean")
    logs = -np.log(np.maximum(squared, np.finfo(squared.dtype).tiny)) / (fuzzifier - 1)
    # a cell on a centre, or a fuzzifier near 1: the powers themselves overflow
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def fuzzy_c_means(
    x: np.ndarray,
    seed: int,
    n_clusters: int | None = None,
    fuzzifier: float = 2.0,
    max_iter: int = 300,
) -> np.ndarray:
    """Cluster by fuzzy c-means (Bezdek 1981) from k-means++; the strongest membership counts.

    It ends when no centre moves by more than a ten-thousandth of the spread of the data.
    """
    x = np.asarray(x, dtype=np.float64)
    centres, _ = kmeans_plusplus(x, n_clusters or N_CLUSTERS, random_state=seed)
    tolerance = 1e-4 * np.linalg.norm(x.std(axis=0))
    for _ in range(max_iter):
        weights = memberships(x, centres, fuzzifier) ** fuzzifier
        before, centres = centres, weights.T @ x / weights.sum(axis=0)[:, None]
        if np.linalg.norm(centres - before, axis=1).max() <= tolerance:
            break
    return memberships(x, centres, fuzzifier).argmax(axis=1).astype(str)
