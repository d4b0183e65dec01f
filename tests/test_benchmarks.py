"""The benchmarks: what they share, and the baselines of our own."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import (
    EXPERIMENTS,
    __main__,
    cost,
    cytof,
    images,
    latents,
    organs,
    page,
    peers,
    santos,
    synthetic,
)
from benchmarks.autoencoder import Autoencoder, batches, n2d
from benchmarks.classifier import SHIFT, Classifier, moved
from benchmarks.experiment import Options, attempt, execute, in_order_of, merge, save
from benchmarks.tables import markdown, spread
from benchmarks.vade import VaDE, log_responsibilities, prior_divergence
from made_up import as_intensities
from sklearn.metrics import adjusted_rand_score
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from scmoe._core.compat import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad

pytestmark = pytest.mark.slow


def ignore(line: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets of a few units wait for each other's threads longer than they compute."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """300 cells in 3 groups far apart, 4 markers."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0, 0], [8, 0, 8, 0], [0, 8, 0, 8]])
    which = np.arange(300) % 3
    return (centres[which] + rng.normal(size=(300, 4))).astype(np.float32), which


@pytest.fixture(scope="module")
def bars() -> tuple[np.ndarray, np.ndarray]:
    """360 noisy images of 8 x 8 pixels in 3 classes: a bar at the top, at the left, or a cross."""
    rng = np.random.default_rng(0)
    shapes = np.zeros((3, 8, 8))
    shapes[0, 1:3], shapes[1, :, 1:3], shapes[2, 5:7], shapes[2, :, 5:7] = 1, 1, 1, 1
    which = np.arange(360) % 3
    x = 0.8 * shapes[which] + rng.uniform(0, 0.2, (360, 8, 8))
    return x.reshape(360, 64).astype(np.float32), which


# -- experiments ---------------------------------------------------------------------------


def test_a_new_record_takes_the_place_of_the_old_one():
    old = [{"a": 1, "s": 0, "v": 1}, {"a": 2, "s": 0, "v": 2}]
    new = [{"a": 1, "s": 0, "error": "no"}, {"a": 1, "s": 1, "v": 4}]
    assert merge(old, new, ("a", "s")) == [
        {"a": 1, "s": 0, "error": "no"},
        {"a": 2, "s": 0, "v": 2},
        {"a": 1, "s": 1, "v": 4},
    ]


def test_records_are_written_before_an_interruption(tmp_path):
    def run(options, say):
        yield {"method": "quick", "seed": options.seeds[0], "score": 1.0}
        raise KeyboardInterrupt

    path = tmp_path / "results" / "toy.json"
    save(path, [{"method": "older", "seed": 0, "score": 0.5}], ("method", "seed"), {})
    module = SimpleNamespace(KEYS=("method", "seed"), SETTINGS={"least": 3}, run=run)
    with pytest.raises(KeyboardInterrupt):
        execute(module, Options([7]), ignore, path)
    result = json.loads(path.read_text())
    assert [record["method"] for record in result["records"]] == ["older", "quick"]
    assert result["records"][1]["seed"] == 7
    assert result["least"] == 3
    assert result["versions"]["torch"] == torch.__version__
    assert [p.name for p in path.parent.iterdir()] == ["toy.json"]


def test_an_error_is_a_record():
    lines: list[str] = []

    def fail():
        raise RuntimeError("too big")

    assert attempt({"method": "m"}, fail, lines.append) == {
        "method": "m",
        "error": "RuntimeError: too big",
    }
    assert attempt({"method": "n"}, lambda: {"score": 0.25}, lines.append)["score"] == 0.25
    assert lines == ["m: RuntimeError: too big", "n: score 0.250"]


def test_options_choose_in_the_order_of_the_experiment():
    options = Options([0], methods=["c", "a"])
    assert options.choose("methods", ["a", "b", "c"]) == ["a", "c"]
    assert options.choose("datasets", {"x": 1}) == ["x"]
    with pytest.raises(KeyError, match=r"No methods named \['c'\]"):
        options.choose("methods", ["a", "b"])


def test_every_seed_is_an_order(blobs):
    first, again, other = (in_order_of(seed, blobs) for seed in (0, 0, 1))
    assert first.obs_names.equals(again.obs_names)
    assert not first.obs_names.equals(other.obs_names)
    assert set(first.obs_names) == set(blobs.obs_names)
    assert np.array_equal(first.X, blobs[first.obs_names].X)


@pytest.mark.parametrize("module", [images, latents, organs, santos])
def test_experiments_draw_an_order_for_each_seed(module, blobs, monkeypatch):
    seen: list[np.ndarray] = []

    def look(*arguments, **kwargs):
        cells = next(a for a in arguments if hasattr(a, "obs_names"))
        seen.append(np.asarray(cells.X))
        return {}

    blobs.obs["label"] = blobs.obs["population"]
    monkeypatch.setattr(module, "DATASETS", {"blobs": lambda: blobs})
    if module is organs:
        monkeypatch.setattr(organs, "DATASETS", {"blobs": organs.Data(lambda: blobs)})
    monkeypatch.setattr(latents, "load", lambda *_: blobs)
    method = {latents: "as it comes", organs: "k-means", images: "N2D", santos: santos.TOLD}
    monkeypatch.setattr(module, "run_model" if module is santos else "measure", look)
    list(module.run(Options([0, 1], methods=[method[module]]), ignore))
    first, second = seen
    assert not np.array_equal(first, second)


def test_tables():
    assert spread(pd.Series([1.0, 3.0, 2.0]), 1) == "2.0 (1.0–3.0)"
    assert spread(pd.Series([np.nan]), 1) == "–"
    assert spread(pd.Series([-0.01]), 1) == "0.0"
    assert markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |\n"


def test_page_of_the_results_that_there_are(tmp_path):
    records = [
        {"table": "experts", "batch": 256, "experts": 10, "kind": "routed", "us_per_cell": 2.5},
        {"table": "stages", "n_cells": 10_000, "graph": 1.5},
        {"table": "stages", "n_cells": 40_000, "error": "MemoryError: none left"},
    ]
    save(tmp_path / "cost.json", records, cost.KEYS, cost.SETTINGS)
    page.write(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| batch | experts | kind | us_per_cell |" in text
    assert "| 256 | 10 | routed | 2.5 |" in text
    assert "| 10000 | 1.5 |" in text
    assert "- stages, 40000: MemoryError: none left" in text
    assert "## CyTOF" not in text


def test_page_of_the_results_that_are_kept(tmp_path):
    page.write(__main__.RESULTS, tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text()
    assert text == __main__.PAGE.read_text()
    # the summary: the best peer of each line, where we are ahead and where we are not
    for line in (
        "weighted F, by components | 20 | **1.000** | 0.894 | Gaussian mixture, true number |",
        "ACC | MNIST | 0.987 | **0.990** | Gaussian mixture, UMAP of gradients |",
        "NMI | mean of 12 data sets | **0.834** | 0.771 | Leiden, resolution 1 |",
    ):
        assert line in text
    for path in __main__.RESULTS.glob("*.json"):
        assert path.stem in EXPERIMENTS


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(__main__, "RESULTS", tmp_path)
    monkeypatch.setattr(__main__, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(synthetic, "SIZES", {"small": (300, (2, 3))})
    arguments = ["synthetic", "--size", "small", "--seeds", "2", "--datasets", "equal weights"]
    arguments += ["--methods", "Gaussian mixture, true number"]
    assert __main__.main([*arguments, "--dry"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert __main__.main(arguments) == 0
    assert __main__.main(arguments) == 0
    records = json.loads((tmp_path / "synthetic.json").read_text())["records"]
    assert [(r["n_components"], r["seed"]) for r in records] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert "### Equal weights, 300 cells" in (tmp_path / "page.md").read_text()
    with pytest.raises(SystemExit):
        __main__.main(["nothing"])
    assert "no such experiment: nothing" in capsys.readouterr().err


# -- synthetic -----------------------------------------------------------------------------


def test_mixture_is_drawn_as_it_says():
    x, component = synthetic.mixture(3, 30_000, 0, n_features=4, separation=10.0)
    assert x.dtype == np.float32
    assert np.bincount(component) / 30_000 == pytest.approx(1 / 3, abs=0.01)
    for k in range(3):
        axes = np.linalg.eigvalsh(np.cov(x[component == k].T))
        assert 0.24 < axes.min() < axes.max() < 4.1
        # the rotation: the features of a component are correlated
        correlation = np.corrcoef(x[component == k].T)
        assert np.abs(correlation - np.eye(4)).max() > 0.1
    means = np.concatenate(
        [synthetic.mixture(1, 1, s, separation=10.0, n_features=50)[0] for s in range(40)]
    )
    assert means.std() == pytest.approx(10.0, abs=0.7)


def test_every_component_has_a_cell():
    _, component = synthetic.mixture(50, 60, 1, n_features=3, concentration=0.05)
    assert set(component) == set(range(50))
    with pytest.raises(ValueError, match="5 cells from 6 components"):
        synthetic.mixture(6, 5, 0)


def test_same_seed_same_mixture():
    first, again = (synthetic.mixture(4, 50, 3, concentration=5.0) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], synthetic.mixture(4, 50, 4, concentration=5.0)[0])


def test_bic_chooses_the_number(monkeypatch):
    monkeypatch.setattr(synthetic, "BIC_GRID", (1, 2, 3, 4))
    x, truth = synthetic.mixture(3, 900, 0, n_features=4, separation=8.0)
    found = synthetic.bic_number(x, 3, 0)
    assert synthetic.scores(truth, found) == {"weighted_f": 1, "mean_f1": 1, "n_clusters": 3}


# -- CyTOF ---------------------------------------------------------------------------------


def test_scores_by_hand():
    truth = np.repeat(np.array(["big", "rare", "tiny", np.nan], dtype=object), [60, 10, 5, 25])
    sizes = pd.Series({"big": 9_000, "rare": 31, "tiny": 20})
    found = np.repeat(np.array(["0", "1", "0"]), [60, 8, 32])
    scores = cytof.scores(truth, found, sizes, 10_000)
    # tiny and the cells without a population are clustered and not scored
    big, rare = 2 * 60 / (60 + 62), 2 * 8 / (10 + 8)
    assert scores["mean_f1"] == pytest.approx((big + rare) / 2)
    assert scores["weighted_f"] == pytest.approx((60 * big + 10 * rare) / 70)
    assert scores["ari"] == pytest.approx(adjusted_rand_score([0] * 60 + [1] * 10, found[:70]))
    assert scores["n_clusters"] == 2
    assert scores["rare"] == {"rare": round(rare, 3)}
    assert cytof.scores(truth, found, sizes, 40_000)["rare"] == {}  # below 0.1 %


def test_both_protocols(monkeypatch, blobs, tmp_path):
    monkeypatch.setattr(cytof, "DATASETS", {"blobs": lambda: as_intensities(blobs.copy())})
    monkeypatch.setattr(cytof, "PAPER", ("blobs",))
    monkeypatch.setattr(cytof, "warm_up", lambda: None)
    calls = []

    def constant(x, seed):
        calls.append(x)
        return np.repeat("0", len(x))

    monkeypatch.setattr(cytof, "PEERS", {"constant": constant})
    monkeypatch.setattr(cytof, "METHODS", ["constant", cytof.CEILING])
    path = tmp_path / "cytof.json"
    execute(cytof, Options([0, 1], datasets=["blobs"]), ignore, path)
    records = json.loads(path.read_text())["records"]
    assert [(r["protocol"], r["method"], r["seed"]) for r in records] == [
        ("all cells", "constant", 0),
        ("80/20", "constant", 0),
        ("all cells", cytof.CEILING, 0),
        ("all cells", "constant", 1),
        ("80/20", "constant", 1),
        ("all cells", cytof.CEILING, 1),
    ]
    # a peer's clustering of all cells serves both protocols; another seed is another order
    first, second = calls
    assert len(first) == len(second) == 600
    assert not np.array_equal(first, second)
    assert records[0]["weighted_f"] == records[3]["weighted_f"] != records[1]["weighted_f"]
    assert records[2]["weighted_f"] > 0.95
    text = cytof.section(json.loads(path.read_text()))
    assert text.index("### blobs: 600 cells, all cells") < text.index("600 cells, 80/20")


def test_one_population(monkeypatch):
    monkeypatch.setattr(cytof, "warm_up", lambda: None)
    options = Options([0, 1], datasets=list(cytof.NULLS), methods=["k-means, 15 clusters"])
    records = list(cytof.run(options, ignore))
    assert [r["n_clusters"] for r in records] == [15] * 4
    text = cytof.section({"records": records})
    assert "| method | Gaussian | integers | seconds | seeds |" in text
    assert "| k-means, 15 clusters | 15 (15–15) | 15 (15–15) |" in text
    for make in cytof.NULLS.values():
        assert make(0).shape == cytof.NULL_SHAPE
        assert not np.array_equal(make(0), make(1))
    whole = 5 * np.sinh(cytof.counts(0))
    assert np.allclose(whole, np.round(whole))


def test_scmoe_predicts_cells_that_it_has_not_seen(blobs, monkeypatch):
    def short(cells: ad.AnnData, **kwargs):
        kwargs |= {"n_clusters": 8, "train_kwargs": {"max_epochs": 60}}
        return cluster(cells, **kwargs)

    cluster = cytof.scmoe.tl.cluster
    monkeypatch.setattr(cytof.scmoe.tl, "cluster", short)
    truth = blobs.obs["population"].to_numpy(dtype=object)
    proba = cytof.scmoe_unseen(blobs.X[:480], blobs.X[480:], 0)
    assert adjusted_rand_score(truth[480:], proba.to_numpy().argmax(1)) > 0.8
    told = cytof.trust(proba, truth[480:], pd.Series(truth).value_counts())
    assert told["calibration_error"] < 0.1
    assert told["right_decided"] > 0.9


def test_share_of_the_rare_populations_that_can_be_found():
    def record(method, seed, **rare):
        identity = ("simulated plate", 9, "all cells", method, seed)
        measured = {"weighted_f": 0.5, "mean_f1": 0.25, "ari": 0.75, "n_clusters": 4}
        keys = dict(zip(cytof.KEYS, identity, strict=True))
        return {**keys, **measured, "seconds": 1.0, "rare": rare}

    records = [
        record(cytof.CEILING, 0, a=0.9, b=0.85, c=0.7),
        record(cytof.CEILING, 1, a=0.9, b=0.8, c=0.9),
        record(cytof.CEILING, 2, a=0.9, b=0.7, c=0.6),  # medians 0.9, 0.8 and 0.7
        record("PhenoGraph", 0, a=0.6, b=0.59, c=0.9),
    ]
    text = cytof.section({"records": records})
    assert "| method | weighted F | mean F1 | ARI | rare, of 2 | clusters |" in text
    assert "| PhenoGraph | 0.500 | 0.250 | 0.750 | 0.50 | 4 |" in text
    # without the ceiling nothing is known of what can be found
    assert "rare, of" not in cytof.section({"records": records[3:]}).split("###", 1)[1]


# -- peers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["k_means", "gaussian_mixture", "hdbscan", "ward", "fuzzy_c_means"]
)
def test_peers_find_groups_that_are_far_apart(name, groups):
    x, truth = groups
    found = getattr(peers, name)(x, 0, 3)
    assert found.shape == truth.shape
    assert adjusted_rand_score(truth, found) > 0.99


def test_the_ceiling_is_told_the_labels_of_other_cells(groups):
    x, which = groups
    truth = np.array(["a", "b", "c"], dtype=object)[which]
    truth[:3] = np.nan
    truth[3:8] = "rare"
    found = peers.told(x, truth, 0, 30)
    assert pd.isna(found[:8]).all()
    assert (found[8:] == truth[8:]).mean() > 0.98
    shuffled = np.random.default_rng(0).permutation(truth)
    # it does not see the label that it is to say
    assert (peers.told(x, shuffled, 0, 30)[shuffled == "a"] == "a").mean() < 0.6


def test_cytovi(groups, monkeypatch):
    x, truth = groups
    neighbors = functools.partial(peers.sc.pp.neighbors, transformer="sklearn")
    monkeypatch.setattr(peers.sc.pp, "neighbors", neighbors)
    monkeypatch.setattr(peers, "CYTOVI_STEPS", 150)
    monkeypatch.setattr(peers, "leiden", lambda codes, *_, **__: peers.k_means(codes, 0, 3))
    assert adjusted_rand_score(truth, peers.cytovi(x, 0)) > 0.9


def test_peers_that_split_groups_do_not_mix_them(groups, monkeypatch):
    # exact neighbours, which need no compilation
    neighbors = functools.partial(peers.sc.pp.neighbors, transformer="sklearn")
    monkeypatch.setattr(peers.sc.pp, "neighbors", neighbors)
    x, truth = groups
    found = peers.louvain(x, 0, 4)
    pairs = pd.crosstab(found, truth).to_numpy()
    assert ((pairs > 0).sum(axis=1) == 1).all()


def test_noise_goes_to_the_nearest_centroid():
    x = np.array([[0.0], [1.0], [10.0], [12.0], [5.0], [8.0]])
    labels = np.array([0, 0, 3, 3, -1, -1])
    assert peers.assign_noise(x, labels).tolist() == [0, 0, 3, 3, 0, 3]
    assert peers.assign_noise(x, np.full(6, -1)).tolist() == [0] * 6


def test_ward_refuses_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(peers, "WARD_LIMIT", 5)
    with pytest.raises(ValueError, match="6 cells"):
        peers.ward(np.zeros((6, 1)), 0)


def test_memberships_by_hand():
    x, centres = np.array([[0.0], [1.0]]), np.array([[-1.0], [3.0]])
    # distances 1, 3 and 2, 2; with m = 2 memberships go by the inverse squares
    assert peers.memberships(x, centres, 2.0) == pytest.approx(np.array([[0.9, 0.1], [0.5, 0.5]]))
    assert peers.memberships(x, centres, 3.0)[0] == pytest.approx([0.75, 0.25])
    assert peers.memberships(centres, centres, 1.1) == pytest.approx(np.eye(2))


# -- autoencoder, VaDE, N2D -----------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_autoencoder_learns(bars, binary):
    x, _ = bars
    model = Autoencoder(64, 2, (16,), binary=binary)
    model.fit(x, 0, 60, lr=1e-2)
    with torch.no_grad():
        loss = model.loss(torch.from_numpy(x)).item()
    mean = x.mean(axis=0)
    entropy = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).mean()
    # clearly better than the mean image
    assert loss < 0.8 * (entropy if binary else x.var(axis=0).mean())
    assert model.encode(x).shape == (360, 2)


def test_batches_hold_every_row_once():
    index = torch.cat(list(batches(10, 4, torch.device("cpu"))))
    assert sorted(index.tolist()) == list(range(10))
    assert sum(len(part) for part in batches(9, 4, torch.device("cpu"))) == 8


def test_n2d(bars):
    x, truth = bars
    found = n2d(x, 0, 3, epochs=100, hidden=(16,))
    assert adjusted_rand_score(truth, found) > 0.9


PRIOR = (
    torch.tensor([0.3, -0.4, 1.0]),
    torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.5, 0.5]]),
    torch.tensor([[0.2, -0.3], [0.0, 0.5], [-1.0, 0.1]]),
)


def test_responsibilities_are_those_of_the_mixture():
    z = torch.tensor([[0.5, 0.2], [-1.0, 2.0]])
    logits, means, log_variances = PRIOR
    components = Independent(Normal(means, (0.5 * log_variances).exp()), 1)
    joint = Categorical(logits=logits).probs * components.log_prob(z[:, None]).exp()
    expected = joint / joint.sum(1, keepdim=True)
    torch.testing.assert_close(log_responsibilities(z, *PRIOR).exp(), expected)


def test_responsibilities_far_from_all_components():
    log_gamma = log_responsibilities(torch.full((1, 2), 1e4), *PRIOR)
    assert torch.isfinite(log_gamma).all()
    torch.testing.assert_close(log_gamma.exp().sum(), torch.tensor(1.0))


def test_divergence_is_that_of_the_joint_distributions():
    logits, means, log_variances = PRIOR
    mean = torch.tensor([[0.1, 0.4], [1.0, -2.0]])
    log_variance = torch.tensor([[-0.5, 0.3], [0.0, -1.0]])
    log_gamma = torch.log_softmax(torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]]), 1)
    q = Independent(Normal(mean[:, None], (0.5 * log_variance[:, None]).exp()), 1)
    p = Independent(Normal(means, (0.5 * log_variances).exp()), 1)
    expected = (log_gamma.exp() * kl_divergence(q, p)).sum(1)
    expected += kl_divergence(Categorical(logits=log_gamma), Categorical(logits=logits))
    # -1/2 sum_j log v_j of the formula is the entropy of q(z | x), which does not depend on c
    found = prior_divergence(mean, log_variance, log_gamma, *PRIOR)
    torch.testing.assert_close(found, expected)


def test_vade_loss_bounds_the_likelihood():
    """The mean of the loss is above -log p(x), estimated by drawing codes from the prior."""
    torch.manual_seed(0)
    model = VaDE(5, 3, 2, (4,))
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])
    with torch.no_grad():
        loss = model.loss(x.expand(20_000, -1)).mean()
        components = torch.multinomial(torch.softmax(model.logits, 0), 20_000, replacement=True)
        z = model.means[components]
        z = z + torch.randn_like(z) * (0.5 * model.log_variances[components]).exp()
        output = model.autoencoder.decoder(z)
        log_p = -torch.nn.functional.binary_cross_entropy_with_logits(
            output, x.expand(20_000, -1), reduction="none"
        ).sum(1)
        evidence = torch.logsumexp(log_p, 0) - np.log(20_000)
    assert -evidence < loss < -evidence + 5


@pytest.fixture(scope="module")
def trained(bars) -> VaDE:
    x, _ = bars
    torch.manual_seed(0)
    model = VaDE(64, 3, 2, (32, 16))
    model.fit(x, 0, pretrain_epochs=150, epochs=15, restarts=2)
    return model


def test_vade_does_not_collapse(trained, bars):
    x, truth = bars
    assert adjusted_rand_score(truth, trained.predict(x)) > 0.9


def test_vade_same_seed_same_labels(bars):
    x, _ = bars
    model = VaDE(64, 3, 2, (8,))
    model.fit(x, 1, 2, 2, restarts=1)
    first = model.predict(x), model.means.detach().clone()
    model.fit(x, 1, 2, 2, restarts=1)
    assert np.array_equal(first[0], model.predict(x))
    torch.testing.assert_close(first[1], model.means.detach())


def test_vade_refuses_other_values():
    with pytest.raises(ValueError, match="between 0 and 1"):
        VaDE(4, 2, 2, (4,)).fit(np.full((10, 4), 255.0), 0)


def test_proposals_are_counted(monkeypatch):
    """Two equal components: a code of the first is accepted left of a line that is known."""
    model = VaDE(6, 2, 1, (4,))
    with torch.no_grad():
        model.means.copy_(torch.tensor([[-0.5], [0.5]]))
    # p(0 | z) = 1 / (1 + exp(z)) > 0.8 where z < -log 4; proposals are N(-0.5, 1)
    share = Normal(-0.5, 1.0).cdf(torch.tensor(-np.log(4.0))).item()
    images, n_proposals = model.sample(0, 4000, 0.8)
    assert images.shape == (4000, 6)
    assert 4000 / n_proposals == pytest.approx(share, rel=0.05)
    assert model.decoder_calls == 4000

    noise = torch.randn(8192, 1, generator=torch.Generator().manual_seed(5))
    accepted = (noise[:, 0] - 0.5 < -np.log(4.0)).nonzero()[:, 0]
    assert model.sample(0, 3, 0.8, seed=5)[1] == accepted[2] + 1


def test_proposals_without_a_threshold_are_all_accepted():
    images, n_proposals = VaDE(6, 2, 1, (4,)).sample(1, 10)
    assert n_proposals == len(images) == 10


def test_proposals_run_out():
    model = VaDE(6, 2, 1, (4,))
    with torch.no_grad():
        model.means.zero_()  # p(c | z) is 1/2 everywhere
    images, n_proposals = model.sample(0, 5, 0.6, max_proposals=10_000)
    assert images.shape == (0, 6)
    assert n_proposals == 10_000
    assert model.decoder_calls == 0


@pytest.mark.parametrize(("component", "threshold"), [(2, 0.5), (-1, 0.5), (0, 1.0), (0, -0.1)])
def test_sampling_refuses(component, threshold):
    with pytest.raises(ValueError, match=r"component|threshold"):
        VaDE(6, 2, 1, (4,)).sample(component, 1, threshold)


# -- classifier ----------------------------------------------------------------------------


def test_classifier_learns_and_says_how_well(bars):
    x, y = bars
    model = Classifier(8, 3, (4, 8)).fit(x[:240], y[:240], x[240:], y[240:], 0, 15)
    assert model.test_accuracy > 0.95
    assert model.test_accuracy == np.mean(model.predict(x[240:]) == y[240:])


def test_classifier_refuses_other_values():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Classifier(8, 3, (4, 8)).predict(np.full((2, 64), 255.0))


def test_images_are_moved_and_zeros_come_in():
    x = torch.zeros(1, 9, 9)
    x[0, 4, 4] = 1
    torch.manual_seed(0)
    places = {tuple((moved(x)[0] == 1).nonzero()[0].tolist()) for _ in range(300)}
    span = range(4 - SHIFT, 4 + SHIFT + 1)
    assert places == {(i, j) for i in span for j in span}
    assert moved(x).sum() == 1


# -- latent sizes --------------------------------------------------------------------------


def test_made_up_values_have_the_rank_that_is_said():
    x = latents.known(5, 0).X
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    assert values[4] > 3 * values[5]


def test_section_of_latent_sizes():
    def record(seed, n_latent, populations=None):
        return {
            "dataset": "cells",
            "n_cells": 1000,
            "method": "as it comes",
            "seed": seed,
            "n_latent": n_latent,
            "n_latent_reconstruction": 7,
            "in_use": 8,
            "loss": 0.5,
            "seconds": 3.0,
            "populations": populations,
        }

    records = [record(0, 5, {"a": 2, "b": 4}), record(1, 6, {"a": 3, "b": 4})]
    text = latents.section({"records": records})
    assert "| cells | 1,000 | as it comes | 6 (5–6) | 7 (7–7) | 8 (8–8) " in text
    assert "| 2–4 | 3 (3–3) | 2 |" in text
    failed = {"dataset": "cells", "n_cells": 1, "method": "m", "seed": 0, "error": "no"}
    assert "–" in latents.section({"records": [record(0, 5), failed]})
