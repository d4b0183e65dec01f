"""The loss of Santos' mixture, who learns from it, and experts that change their numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scvi import REGISTRY_KEYS

from scmoe.model._moevae_module import MoEVAEModule, MoEVAESettings
from scmoe.nn import MLP
from scmoe.train import MixturePlan

N_INPUT = 6
SIZES = (3, 1, 2)


def make(n_latents=SIZES, *, seed=0, shape=None, **changes):
    """A module in evaluation mode whose parts all differ."""
    torch.manual_seed(seed)
    settings = {
        "n_latents": n_latents,
        "n_shared": 2,
        "image_shape": shape,
        "n_hidden": 8,
        "n_layers": 1,
        "width": 2,
        "activation": "elu",
        "likelihood": "gaussian",
        "kl": "elbo",
        "loss": "santos",
        "sample_weight": 100.0,
        "batch_weight": 3.0,
        "balance": "found",
        "n_routed": None,
        **changes,
    }
    n_input = N_INPUT if shape is None else shape[0] * shape[1]
    module = MoEVAEModule(MoEVAESettings(n_input=n_input, **settings))
    experts = module.experts
    experts.centre.uniform_(0.3, 0.6)
    experts.spread.uniform_(0.1, 0.3)
    experts.noise.uniform_(0.2, 1.5)
    module.expected.copy_(torch.rand(len(n_latents)).softmax(0))
    for name in ("means", "spread", "offsets"):
        getattr(module, name).normal_()
    for name in ("covariances", "residuals"):
        root = torch.randn_like(getattr(module, name))
        getattr(module, name).copy_(root @ root.mT)
    module.quantiles.uniform_()
    module.size.copy_(torch.arange(5, 5 + len(n_latents)))
    module.batches.copy_(module.size[:, None])
    return module.eval()


def cells(n=12, n_input=N_INPUT, seed=1):
    return torch.rand(n, n_input, generator=torch.Generator().manual_seed(seed))


def losses(module, x, **kwargs):
    inference = module.inference(x)
    inputs = module._get_generative_input({}, inference)
    return module.loss({REGISTRY_KEYS.X_KEY: x}, inference, module.generative(**inputs), **kwargs)


def numbers(out):
    """The loss and its terms."""
    terms = {"loss": out.loss, **out.extra_metrics}
    return {name: float(value.detach()) for name, value in terms.items()}


def distance_by_hand(module, x):
    """Eq. 3 for all experts, without their own function."""
    experts, parts = module.experts, []
    for k in range(module.n_experts):
        which = torch.full((len(x),), k)
        loc, log_var = experts.encode(x, which)
        made = experts.decode(loc, which)
        noise = experts.noise[k]
        squares = ((x - made) / experts.spread) ** 2
        missed = 0.5 * (squares / noise + torch.log(2 * torch.pi * noise))
        price = 0.5 * (loc**2 + log_var.exp() - 1 - log_var).sum(1)
        parts.append(missed.mean(1) + price / x.shape[1])
    return torch.stack(parts, 1).detach().numpy().astype(float)


def terms_by_hand(module, x, n_routed):
    """R, S and B of eqs. 3 to 5, and B against the shares that were found."""
    logits = module.manage(x).detach().numpy().astype(float)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    share = np.zeros_like(p)
    for i, best in enumerate(np.argsort(-p, 1)[:, :n_routed]):
        share[i, best] = p[i, best] / p[i, best].sum()
    mean = p.mean(0)
    return {
        "R": (share * distance_by_hand(module, x)).sum(1).mean(),
        "S": -(p * np.log(p)).sum(1).mean(),
        "even": (mean * np.log(mean)).sum(),
        "found": (mean * np.log(mean / module.expected.numpy())).sum(),
        "log_share": np.log(share, where=share > 0, out=np.full_like(share, -np.inf)),
    }


# ----------------------------------------------------------------------------------------
# the loss


@pytest.mark.parametrize("balance", ["found", "even"])
@pytest.mark.parametrize("n_routed", [None, 2, 1, 99])
def test_equation_6(n_routed, balance):
    module, x = make(n_routed=n_routed, balance=balance), cells()
    known = terms_by_hand(module, x, min(n_routed or 3, 3))
    metrics = numbers(losses(module, x))
    assert metrics["distance"] == pytest.approx(known["R"], rel=1e-4)
    assert metrics["sample_entropy"] == pytest.approx(known["S"], rel=1e-4)
    assert metrics["batch_entropy"] == pytest.approx(known[balance], rel=1e-4, abs=1e-6)
    assert metrics["reconstruction"] + metrics["kl"] == pytest.approx(known["R"], rel=1e-4)
    expected = known["R"] + 100 * known["S"] + 3 * known[balance]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-4)
    used = len(set(module.inference(x)["expert"].tolist()))
    assert metrics["occupied_experts"] == used


def test_the_shares_of_the_routed_experts_sum_to_1():
    module, x = make(n_routed=2), cells()
    made = module.generative(x, module.manage(x))
    assert made["log_share"].shape == made["distance"].shape == (12, 2)
    torch.testing.assert_close(made["log_share"].exp().sum(1), torch.ones(12))
    assert (made["log_share"][:, 0] >= made["log_share"][:, 1]).all()


def test_the_distance_is_that_of_the_preferred_experts():
    module, x = make(n_routed=2), cells()
    logits = module.manage(x)
    made = module.generative(x, logits)
    all_ = module.distances(x)
    best = logits.argsort(1, descending=True)[:, :2]
    torch.testing.assert_close(made["distance"], all_.gather(1, best))


def test_hardness_is_a_matter_of_the_sample_entropy():
    module, x = make(), cells()
    soft, hard, half = (numbers(losses(module, x, hardness=h)) for h in (0.0, 1.0, 0.5))
    entropy = hard["sample_entropy"]
    assert hard["loss"] - soft["loss"] == pytest.approx(100 * entropy, rel=1e-4)
    assert half["loss"] - soft["loss"] == pytest.approx(50 * entropy, rel=1e-4)
    assert {**soft, "loss": 0} == {**hard, "loss": 0}


def test_the_two_balances_differ_by_log_k_where_nothing_was_found():
    found, even = make(balance="found"), make(balance="even")
    found.expected.fill_(1 / 3)
    difference = numbers(losses(found, cells()))["loss"] - numbers(losses(even, cells()))["loss"]
    assert difference == pytest.approx(3 * np.log(3), rel=1e-3)


@pytest.mark.parametrize("n_routed", [None, 2])
def test_damic(n_routed):
    module, x = make(loss="damic", n_routed=n_routed), cells()
    log_share = terms_by_hand(module, x, n_routed or 3)["log_share"]
    # the likelihood of all features together, and its mean over them
    likelihood = np.exp(log_share - N_INPUT * distance_by_hand(module, x)).sum(1)
    expected = -np.log(likelihood).mean() / N_INPUT
    found = numbers(losses(module, x))
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert numbers(losses(module, x, hardness=0.0)) == found


def test_mixae_makes_its_terms_equally_large():
    module, x = make(loss="mixae", balance="even"), cells()
    known = terms_by_hand(module, x, 3)
    r, s, b = abs(known["R"]), known["S"], known["even"]
    alpha = r / s
    beta = (r + alpha * s) / abs(b)
    expected = known["R"] + alpha * s + beta * b
    assert numbers(losses(module, x))["loss"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


# ----------------------------------------------------------------------------------------
# who learns


def prefers(module, bias):
    """Let the manager prefer experts, the same ones for all cells."""
    with torch.no_grad():
        module.manager.out.weight.mul_(0.01)
        module.manager.out.bias.copy_(torch.tensor(bias))
    return module


@pytest.mark.parametrize("loss", ["santos", "damic", "mixae"])
def test_only_routed_experts_learn(loss):
    module = prefers(make(loss=loss, n_routed=2), [2.0, -9.0, 1.0]).train()
    losses(module, cells()).loss.backward()
    for stack in (module.experts.vaes.encoders, module.experts.vaes.decoders):
        for tensor in (*stack.weights, *stack.biases):
            moved = tensor.grad.abs().flatten(1).sum(1) > 0
            assert moved.tolist() == [True, False, True]
    assert module.experts.noise.isfinite().all()


def test_only_routed_experts_of_images_learn():
    module = make(shape=(6, 4), n_routed=2, likelihood="bernoulli")
    prefers(module, [2.0, -9.0, 1.0]).train()
    losses(module, cells(12, 24)).loss.backward()
    for stack in (module.experts.vaes.encoders, module.experts.vaes.decoders):
        learns = [any(t.grad is not None for t in part.parameters()) for part in stack]
        assert learns == [True, False, True]


def test_what_an_expert_leaves_is_learned_from_its_cells():
    module = prefers(make(n_routed=2), [2.0, -9.0, 1.0]).train()
    before = module.experts.noise.clone()
    losses(module, cells())
    changed = (module.experts.noise != before).all(1)
    assert changed.tolist() == [True, False, True]
    after = module.experts.noise.clone()
    losses(module.eval(), cells())
    assert torch.equal(module.experts.noise, after)


def test_what_an_expert_leaves_counts_by_its_share(monkeypatch):
    module, x, seen = make(n_routed=2), cells(), []
    distance = module.experts.distance

    def spy(scaled, expert, weight=None):
        seen.append((expert, weight))
        return distance(scaled, expert, weight)

    monkeypatch.setattr(module.experts, "distance", spy)
    logits = module.manage(x)
    made = module.generative(x, logits)
    ((expert, weight),) = seen
    torch.testing.assert_close(weight.view(12, 2), made["log_share"].exp())
    torch.testing.assert_close(expert.view(12, 2), logits.topk(2, dim=1).indices)


@pytest.mark.parametrize(("loss", "n_seen"), [("santos", 12), ("mixae", 12), ("damic", 24)])
def test_an_expert_with_next_to_no_share_is_not_asked(loss, n_seen, monkeypatch):
    """The loss is as if it had been; DAMIC asks all, for its shares follow the distances."""
    module, x, seen = prefers(make(loss=loss, n_routed=2), [20.0, -9.0, 1.0]), cells(), []
    known = module.distances(x)
    distance = module.experts.distance

    def spy(scaled, expert, weight=None):
        seen.append(len(scaled))
        return distance(scaled, expert, weight)

    monkeypatch.setattr(module.experts, "distance", spy)
    made = module.generative(x, module.manage(x))
    assert seen == [n_seen]
    torch.testing.assert_close(made["distance"][:, 0], known[:, 0])
    expected = known[:, 2] if loss == "damic" else torch.zeros(12)
    torch.testing.assert_close(made["distance"][:, 1], expected)
    by_shares = (made["log_share"].exp() * known[:, [0, 2]]).sum(1).mean()
    metrics = numbers(losses(module, x))
    assert metrics["distance"] == pytest.approx(by_shares.item(), rel=1e-5)


def gradient(module, value):
    found = torch.autograd.grad(
        value, module.manager.out.weight, retain_graph=True, allow_unused=True
    )[0]
    return 0.0 if found is None else float(found.abs().sum())


def test_what_the_manager_learns_from():
    module = make().train()
    terms = losses(module, cells()).extra_metrics
    for name in ("distance", "sample_entropy", "batch_entropy"):
        assert gradient(module, terms[name]) > 0
    assert not terms["reconstruction"].requires_grad
    # the only expert of a cell has all of it, whatever the manager says
    alone = make(n_routed=1).train()
    terms = losses(alone, cells()).extra_metrics
    assert gradient(alone, terms["distance"]) == 0
    assert gradient(alone, terms["sample_entropy"]) > 0


def test_the_vae_of_all_cells_learns_nothing():
    module = make().train()
    losses(module, cells()).loss.backward()
    assert all(tensor.grad is None for tensor in module.shared.parameters())
    assert all(tensor.grad is not None for tensor in module.experts.parameters())
    assert all(tensor.grad is not None for tensor in module.manager.parameters())


def test_a_dense_manager_drops_units_in_training_alone():
    module, x = make(), cells(40)
    assert isinstance(module.manager, MLP)
    assert torch.equal(module.manage(x), module.manage(x))
    module.train()
    assert not torch.equal(module.manage(x), module.manage(x))


# ----------------------------------------------------------------------------------------
# the plan


def test_two_learning_rates():
    module = make()
    plan = MixturePlan(module, lr=0.01, manager_lr=0.002)
    optimizer = plan.configure_optimizers()
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in module.experts.parameters()} == {0.01}
    assert {rates[id(p)] for p in module.manager.parameters()} == {0.002}
    assert not any(id(p) in rates for p in module.shared.parameters())
    n = len([*module.experts.parameters(), *module.manager.parameters()])
    assert len(rates) == n


def hardness_over(plan, epochs):
    found = []
    for epoch in range(epochs):
        plan.trainer = SimpleNamespace(max_epochs=epochs, current_epoch=epoch)
        batch = {REGISTRY_KEYS.X_KEY: cells()}
        loss = plan.training_step(batch, 0)
        found.append(plan.loss_kwargs["hardness"])
        inference = plan.module.inference(cells())
        assert torch.isfinite(loss)
        assert inference["logits"].shape == (12, 3)
    return found


@pytest.mark.parametrize(
    ("hardening", "expected"),
    [
        (0.0, [1.0] * 4),
        (1.0, [0.0, 0.25, 0.5, 0.75]),
        (0.5, [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_assignments_harden(hardening, expected):
    plan = MixturePlan(make(), hardening=hardening)
    assert hardness_over(plan, 4) == pytest.approx(expected)


def test_the_ramp_reaches_the_loss():
    """The same cells, networks and draws: only the weight of the sample entropy is another."""
    module = make()
    plan = MixturePlan(module, hardening=1.0)
    found = {}
    for epoch in (0, 5):
        plan.trainer = SimpleNamespace(max_epochs=10, current_epoch=epoch)
        found[epoch] = plan.training_step({REGISTRY_KEYS.X_KEY: cells()}, 0).item()
    entropy = numbers(losses(module, cells()))["sample_entropy"]
    assert found[5] - found[0] == pytest.approx(50 * entropy, rel=1e-3)


def test_history_has_the_means_of_each_epoch(monkeypatch):
    plan, logged = MixturePlan(make()), []
    monkeypatch.setattr(plan, "log", lambda name, value, **_: logged.append((name, float(value))))
    plan.trainer = SimpleNamespace(
        max_epochs=3, current_epoch=0, strategy=SimpleNamespace(reduce=lambda loss: loss)
    )
    for seeds in ((1, 2, 3), (4,)):
        batches = [{REGISTRY_KEYS.X_KEY: cells(seed=seed)} for seed in seeds]
        expected = np.mean([plan.training_step(batch, 0).item() for batch in batches])
        plan.on_train_epoch_end()
        assert dict(logged)["loss_train"] == pytest.approx(expected)
        logged.clear()


@pytest.mark.parametrize("hardening", [-0.1, 1.1, float("nan")])
def test_hardening_out_of_range(hardening):
    with pytest.raises(ValueError, match="`hardening` must be from 0 to 1"):
        MixturePlan(make(), hardening=hardening)


# ----------------------------------------------------------------------------------------
# other numbers for the same experts

ORDER = torch.tensor([2, 0, 1])


@pytest.mark.parametrize("shape", [None, (6, 4)], ids=["dense", "conv"])
@pytest.mark.parametrize("sizes", [SIZES, (2, 2, 2)])
def test_experts_that_are_numbered_anew(shape, sizes):
    likelihood = "gaussian" if shape is None else "bernoulli"
    module = make(sizes, shape=shape, likelihood=likelihood)
    module.live[1] = False
    x = cells(20, module.low.numel())
    z = torch.randn(20, max(sizes))
    first, distances = module.inference(x), module.distances(x)
    made = [module.decode(z, torch.full((20,), k)) for k in range(3)]
    drawn = [draw(module, k) for k in range(3)]
    buffers = {n: b.clone() for n, b in module.named_buffers() if "." not in n}

    module.reorder(ORDER)

    assert module.experts.n_latents == tuple(sizes[k] for k in ORDER)
    assert module.experts.sizes.tolist() == list(module.experts.n_latents)
    second = module.inference(x)
    torch.testing.assert_close(second["proba"], first["proba"][:, ORDER])
    torch.testing.assert_close(ORDER[second["expert"]], first["expert"])
    for name in ("z", "latent"):
        torch.testing.assert_close(second[name], first[name])
    torch.testing.assert_close(module.distances(x), distances[:, ORDER])
    for i, k in enumerate(ORDER.tolist()):
        torch.testing.assert_close(module.decode(z, torch.full((20,), i)), made[k])
        for name, value in draw(module, i).items():
            torch.testing.assert_close(value, drawn[k][name])
    for name, before in buffers.items():
        after = getattr(module, name)
        if name == "quantiles":
            assert torch.equal(after, before[:, ORDER])
        elif name not in ("low", "high"):
            assert torch.equal(after, before[ORDER]), name


def draw(module, k, **kwargs):
    n = 7
    return {
        name: value
        for name, value in module.draw(
            np.full(n, k), np.zeros(n, dtype=int), np.random.default_rng(3), **kwargs
        ).items()
        if name != "expert"
    }


def test_there_and_back():
    module, x = make(), cells()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    module.reorder(ORDER)
    module.reorder(ORDER.argsort())
    assert module.experts.n_latents == SIZES
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    torch.testing.assert_close(module.inference(x)["proba"].sum(1), torch.ones(12))


def test_numbered_anew_experts_load_into_a_module_of_their_sizes():
    module = make()
    module.reorder(ORDER)
    again = make(module.experts.n_latents, seed=9)
    again.load_state_dict(module.state_dict())
    x = cells()
    assert torch.equal(again.distances(x), module.distances(x))
    assert torch.equal(again.inference(x)["z"], module.inference(x)["z"])


# ----------------------------------------------------------------------------------------
# codes, and cells that are drawn


@pytest.mark.parametrize("shape", [None, (6, 4)], ids=["dense", "conv"])
def test_columns_that_an_expert_has_not(shape):
    module = make(shape=shape)
    n_input = module.low.numel()
    for k, size in enumerate(SIZES):
        which = torch.full((5,), k)
        loc, log_var = module.experts.encode(cells(5, n_input), which)
        assert (loc[:, size:] == 0).all()
        assert (log_var[:, size:] == 0).all()
        other = loc.clone()
        other[:, size:] = torch.randn(5, 3 - size)
        assert torch.equal(module.decode(loc, which), module.decode(other, which))
        assert torch.equal(module.gate_of(loc, which), module.gate_of(other, which))


@pytest.mark.parametrize("prior", ["fitted", "unit"])
def test_drawn_codes_have_no_foreign_columns_either(prior):
    module = make()
    for k, size in enumerate(SIZES):
        z = draw(module, k, prior=prior)["z"]
        assert (z[:, size:] == 0).all()
        assert (z[:, :size] != 0).all()


def test_draws_follow_the_description():
    module, n = make(), 20_000
    which, batch = np.full(n, 2), np.zeros(n, dtype=int)
    rng = np.random.default_rng(0)
    z = module.draw(which, batch, rng)["z"][:, :2]
    expected = (module.means[2] + module.offsets[2, 0])[:2]
    torch.testing.assert_close(z.mean(0), expected, atol=0.1, rtol=0)
    torch.testing.assert_close(z.T.cov(), module.covariances[2, :2, :2], atol=0.3, rtol=0.1)
    z = module.draw(which, batch, rng, prior="unit")["z"][:, :2]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.05, rtol=0)
    assert torch.equal(module.prior_means, torch.zeros(3, 3))


def test_who_decodes_what_is_drawn():
    module = prefers(make(), [-9.0, 9.0, 0.0])
    n = 6
    asked, batch = np.full(n, 2), np.zeros(n, dtype=int)
    kept = module.draw(asked, batch, np.random.default_rng(0), noise=False)
    assert kept["expert"].tolist() == [2] * n
    torch.testing.assert_close(kept["scaled"], module.decode(kept["z"], kept["expert"]))
    moved = module.draw(asked, batch, np.random.default_rng(0), gate="network")
    assert moved["expert"].tolist() == [1] * n
    # experts that own no cell do not decode
    module.size[1] = 0
    moved = module.draw(asked, batch, np.random.default_rng(0), gate="network")
    assert moved["expert"].tolist() == [2] * n
    module.live[2] = False
    moved = module.draw(asked, batch, np.random.default_rng(0), gate="network")
    assert moved["expert"].tolist() == [0] * n


def test_the_manager_looks_at_what_the_experts_make():
    module = make()
    z, which = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    made = module.decode(z, which)
    torch.testing.assert_close(module.gate_of(z, which), module.manage(made))


def test_where_cells_lie_among_all():
    module, x = make(), cells()
    z = torch.randn(12, 3)
    latent = module.place(x, z)
    assert latent.shape == (12, 2)
    torch.testing.assert_close(latent, module.shared.encode(x, torch.zeros(12).long())[0])
    torch.testing.assert_close(module.inference(x)["latent"], latent)
    alone = make(n_shared=0)
    assert alone.place(x, z) is z
    assert torch.equal(alone.inference(x)["latent"], alone.inference(x)["z"])


def test_retired_experts_own_nobody():
    module, x = make(), cells(50)
    module.live[0] = False
    found = module.inference(x)
    assert (found["proba"][:, 0] == 0).all()
    assert 0 not in found["expert"]
    torch.testing.assert_close(found["proba"].sum(1), torch.ones(50))
