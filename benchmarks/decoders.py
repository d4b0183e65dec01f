"""One decoder for each cluster: how often a requested digit is generated.

10,000 images are drawn of each cluster. Two judges say which digit an image shows: the model's own
clustering, as in the paper, and a classifier that learned from real digits with their labels. A
cluster stands for the digit that most of its training images show; labels serve for nothing else.
A seed sets the order of the images as well as the random state.

Cost is counted as codes that are proposed for an image. Both decode only what they accept, so both
call a decoder once for an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import scmoe
from benchmarks import images
from benchmarks.classifier import Classifier
from benchmarks.experiment import attempt, in_order_of, timed
from benchmarks.tables import markdown, measured, spread
from benchmarks.vade import VaDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from benchmarks.experiment import Options

KEYS = ("n_images", "n_draws", "method", "threshold", "seed")
SEEDS = 1
SETTINGS: dict = {}

SIZES = {"full": (70_000, 10_000), "small": (10_000, 1_000)}
"""Training images, and draws of each cluster."""

VADE_EPOCHS = {"full": (8, 12), "small": (15, 30)}
"""Of the autoencoder, and of VaDE."""

THRESHOLDS = (0.0, *(round(0.1 * i, 1) for i in range(1, 10)), 0.999)
"""Of the posterior, the paper's; VaDE's own is the last."""

MAX_PROPOSALS = 1_000_000
"""Of a component, then VaDE gives up."""

OURS = {
    "scmoe, requested expert": ("requested", "fitted"),
    "scmoe, expert by the gate": ("network", "fitted"),
    "scmoe, requested expert, unit prior": ("requested", "unit"),
    "scmoe, expert by the gate, unit prior (the paper's)": ("network", "unit"),
}
METHODS = [*OURS, "VaDE"]


def digit_of(cluster: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    """Return the most frequent digit of each cluster."""
    return {name: int(np.bincount(truth[cluster == name]).argmax()) for name in np.unique(cluster)}


def judged(
    x: np.ndarray, own: np.ndarray, asked: np.ndarray, digits: dict[str, int], judge: Classifier
) -> dict:
    """Return the shares of images that show the requested digit, by both judges."""
    wanted = np.array([digits[name] for name in asked])
    right = judge.predict(x) == wanted
    by_digit = {int(d): float(right[wanted == d].mean()) for d in np.unique(wanted)}
    return {
        "own": float(np.mean(own == asked)),
        "outside": float(right.mean()),
        "outside_worst_digit": min(by_digit, key=by_digit.get),
        "outside_worst": min(by_digit.values()),
        "n_digits": len(by_digit),
    }


def train_scmoe(adata: AnnData, seed: int, size: str) -> scmoe.model.MoESimVAE:
    """Train the model of the images benchmark, with the better similarity of that benchmark."""
    from scmoe._core.random import seeded

    settings = images.model_settings(10)
    images.embed(adata, images.GRADIENTS, seed, writing=True)
    similarity = scmoe.similarity.Knn(n_neighbors=images.neighbours(10))
    with seeded(seed):
        scmoe.model.MoESimVAE.setup_anndata(adata, similarity=similarity)
        model = scmoe.model.MoESimVAE(adata, 10, **settings["model_kwargs"])
        model.train(
            max_steps=images.STEPS[size],
            enable_progress_bar=False,
            **settings["train_kwargs"],
        )
    return model


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each sampling method and seed; VaDE for each threshold."""
    n_images, n_draws = SIZES[options.size]
    methods = options.choose("methods", METHODS)
    adata = scmoe.datasets.mnist()
    truth = adata.obs["label"].astype(int).to_numpy()
    train = (adata.obs["split"] == "train").to_numpy()
    x = np.asarray(adata.X)
    judge = Classifier().fit(x[train], truth[train], x[~train], truth[~train], seed=0, say=say)
    say(f"outside classifier: {judge.test_accuracy:.4f} of the test images")
    if n_images < adata.n_obs:
        adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:n_images]].copy()

    for seed in options.seeds:
        shuffled = in_order_of(seed, adata)
        truth, x = shuffled.obs["label"].astype(int).to_numpy(), np.asarray(shuffled.X)
        identity = {"n_images": n_images, "n_draws": n_draws}
        if set(methods) & set(OURS):
            model = train_scmoe(shuffled, seed, options.size)
            digits = digit_of(model.predict(), truth)
            for method in [m for m in OURS if m in methods]:
                gate, prior = OURS[method]

                def measure(gate=gate, prior=prior, model=model, digits=digits, seed=seed) -> dict:
                    new, seconds = timed(
                        lambda: model.generate(
                            dict.fromkeys(digits, n_draws),
                            gate=gate,
                            prior=prior,
                            random_state=seed,
                        )
                    )
                    asked = new.obs["scmoe"].astype(str).to_numpy()
                    return {
                        **judged(np.asarray(new.X), model.predict(new), asked, digits, judge),
                        "proposals": 1.0,
                        "share_drawn": 1.0,
                        "judge": judge.test_accuracy,
                        "seconds": seconds,
                    }

                keys = {**identity, "method": method, "threshold": None, "seed": seed}
                yield attempt(keys, measure, say)
        if "VaDE" in methods:
            vade = VaDE(x.shape[1])
            epochs = VADE_EPOCHS[options.size]
            vade.fit(x, seed, *epochs, say=say)
            found = vade.predict(x).astype(str)
            say(f"VaDE: accuracy {scmoe.metrics.accuracy(truth, found):.4f}")
            digits = digit_of(found, truth)
            for threshold in THRESHOLDS:

                def reject(threshold=threshold, vade=vade, digits=digits, seed=seed) -> dict:
                    drawn, seconds = timed(
                        lambda: {
                            c: vade.sample(
                                int(c), n_draws, threshold, seed=seed, max_proposals=MAX_PROPOSALS
                            )
                            for c in digits
                        }
                    )
                    new = np.concatenate([images for images, _ in drawn.values()])
                    asked = np.repeat(list(drawn), [len(i) for i, _ in drawn.values()])
                    return {
                        **judged(new, vade.predict(new).astype(str), asked, digits, judge),
                        "proposals": sum(p for _, p in drawn.values()) / max(len(new), 1),
                        "share_drawn": len(new) / (n_draws * len(digits)),
                        "judge": judge.test_accuracy,
                        "seconds": seconds,
                    }

                keys = {**identity, "method": "VaDE", "threshold": threshold, "seed": seed}
                yield attempt(keys, reject, say)


def section(result: dict) -> str:
    """Return one table for each size."""
    text = f"""## Why a mixture decoder

MNIST: images are drawn of each cluster, and two judges say whether they show the digit that was
asked for: the model's own clustering of the new image, as in the paper, and a classifier that
learned from real digits. scmoe as in the images benchmark ({images.GRADIENTS}); none of its draws
is rejected. VaDE is our implementation with its posterior thresholds; it is trained for
{VADE_EPOCHS["full"][1]} epochs after {VADE_EPOCHS["full"][0]} of its autoencoder (with
{SIZES["small"][0]:,} images {VADE_EPOCHS["small"][1]} after {VADE_EPOCHS["small"][0]}), its
authors' for 3,000. Where fewer than ten digits have a cluster, clusters that show two digits
please the own judge and not the outside one. *Proposals* are codes that are drawn for an image;
only codes that are accepted are decoded, so by construction both call a decoder once for an
image. *Digits* is how many of the ten have a cluster.
Published: MoE-Sim-VAE .970 and VaDE .944 as the mean over its thresholds, own judge.
"""
    table = measured(result["records"])
    if table.empty:
        return text
    for (n_images, n_draws), rows in table.groupby(["n_images", "n_draws"], sort=False):
        judge = np.median(rows["judge"])
        text += f"\n### {n_images:,} training images, {n_draws:,} draws of each cluster\n\n"
        text += f"The outside classifier is right on {judge:.3f} of the real test images.\n\n"
        text += markdown(
            ["method", "threshold", "own", "outside", "worst digit", "digits", "proposals"],
            (
                [
                    method,
                    "–" if np.isnan(threshold) else f"{threshold:g}",
                    spread(runs["own"], 3),
                    spread(runs["outside"], 3),
                    _worst(runs),
                    f"{np.median(runs['n_digits']):.0f}",
                    f"{np.median(runs['proposals']):.2f}",
                ]
                for (method, threshold), runs in sorted(
                    rows.groupby(["method", "threshold"], dropna=False),
                    key=lambda item: (METHODS.index(item[0][0]), np.nan_to_num(item[0][1])),
                )
            ),
        )
    return text


def _worst(runs) -> str:
    """Return the worst digit of the worst run."""
    run = runs.loc[runs["outside_worst"].idxmin()]
    return f"{run['outside_worst']:.3f} ({run['outside_worst_digit']:.0f})"
