"""The networks of cpl-mixVAE, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from torch.nn.functional import gumbel_softmax

from scmoe._core.settings import NOTHING, POSITIVE, SHARE, number, one_of, setting, whole
from scmoe.model._module import COUNTS, DescribedModule
from scmoe.model._settings import AUTO, Activation, ModelSettings, estimated, of_cells
from scmoe.nn import (
    LOG_VARIANCES,
    Arms,
    Observed,
    category_entropy,
    coupling,
    gaussian_kl,
    log_categories,
    simplex_coordinates,
)
from scmoe.train import BATCH_KEYS

TAUGHT_WEIGHT = 10.0
"""Of the categories that are taught, beside errors of some dozen nats."""


@dataclass(frozen=True, kw_only=True)
class CplMixVAESettings(ModelSettings):
    """Hyper-parameters of :class:`CplMixVAE`."""

    isotropic: bool = of_cells(None, default=False)
    n_categories: int | Literal["auto"] = estimated(
        whole(2),
        AUTO,
        """
        K, the number of categories. ``"auto"``: training starts from the leaves of the density
        tree, or from 25 categories where there is no tree, and prunes those that the arms
        disagree on.
        """,
    )
    n_arms: int = setting(
        whole(1), 2, "A, the number of arms. With one arm nothing is coupled, which is a warning."
    )
    n_state: int = setting(whole(1), 2, "Dimensions of the state.")
    n_embed: int = setting(
        whole(1), 10, "Units of the narrow layer that category and state are read from."
    )
    n_hidden: int = setting(
        whole(1), 100, "Units of each hidden layer of each encoder, and of each decoder."
    )
    n_layers: int = setting(whole(0), 2, "Hidden layers of each encoder, and of each decoder.")
    activation: Activation = setting(default="relu", doc="Activation function of hidden layers.")
    likelihood: Literal["gaussian", "bernoulli", "nb", "zinb"] | None = setting(
        default=None,
        doc="""
        ``"gaussian"``, with the variance of each marker that an arm does not explain,
        ``"bernoulli"``, or for counts ``"nb"`` and ``"zinb"``: (zero-inflated) negative binomials
        with the total of the cell and one inverse dispersion for each gene. None for ``"nb"``
        with counts, ``"bernoulli"`` with images and ``"gaussian"`` otherwise.
        """,
        built=one_of("gaussian", "bernoulli", *COUNTS),
    )
    input_dropout: float = setting(
        SHARE, 0.2, "Share of the features that an encoder does not see in training."
    )
    state_dropout: float = setting(
        SHARE, 0.0, "Share of the states that a decoder does not see in training."
    )
    coupling_weight: float = setting(
        number(), 0.1, r"Weight of the distance of the arms, :math:`\lambda`."
    )
    entropy_weight: float = setting(
        number(), 0.0, r"Weight of the entropy of the categories, :math:`\eta`."
    )
    kl_weight: float = setting(
        number(), 1.0, r"Weight of the KL term of the state, :math:`\beta`."
    )
    distance: Literal["scaled", "aitchison"] = setting(
        default="aitchison",
        doc="""
        ``"aitchison"``: of centred log-ratios, as published. ``"scaled"``: of logarithms of the
        probabilities over their deviations in the batch, as released; its numbers are larger,
        and 0.01 to 0.03 is a fit ``coupling_weight``.
        """,
    )
    sharpness: float | None = setting(
        POSITIVE | NOTHING,
        None,
        """
        None for the plain softmax. A number for the double softmax of the released code
        (0.005 to 0.1 there), which bounds how sure an arm can be.
        """,
    )
    temperature: float = setting(
        POSITIVE, 1.0, "Temperature of the Gumbel softmax by which categories are drawn."
    )
    hard: bool = setting(
        default=False,
        doc="Whether drawn categories are one-hot, with the gradient of the soft draw.",
    )


class CplMixVAEModule(DescribedModule):
    """Coupled mixture VAEs; their categories are the clusters, the first arm draws new cells.

    Parameters
    ----------
    settings
        Hyper-parameters, in which the number of categories is known.
    """

    n_batch = 0
    encode_batch = False
    one_space = False

    settings_class = CplMixVAESettings

    def __init__(self, settings: CplMixVAESettings):
        n_input, n_categories, n_state = settings.n_input, settings.n_categories, settings.n_state
        super().__init__(settings, n_categories, n_state)
        self.n_arms = settings.n_arms
        self.observed = Observed(
            self.n_arms,
            n_input,
            likelihood=settings.likelihood,
            isotropic=settings.isotropic,
        )
        self.arms = Arms(
            self.n_arms,
            n_input,
            self.observed.n_output,
            n_categories,
            n_state,
            n_hidden=settings.n_hidden,
            n_layers=settings.n_layers,
            n_embed=settings.n_embed,
            activation=settings.activation,
            input_dropout=settings.input_dropout,
            state_dropout=settings.state_dropout,
        )
        self.weights = {
            name: getattr(settings, f"{name}_weight") for name in ("coupling", "entropy", "kl")
        }
        self.distance = settings.distance
        self.sharpness = settings.sharpness
        self.temperature, self.hard = settings.temperature, settings.hard
        if self.takes_counts:
            # mean and spread of the logarithm of the totals of each category's cells
            self.register_buffer("totals", torch.zeros(n_categories, 2))

    def position(self, x: torch.Tensor) -> torch.Tensor:
        """Features on the scale on which nearly all training cells lie from 0 to 1.

        That of counts is the scale of their logarithms.
        """
        return super().position(x.log1p() if self.takes_counts else x)

    def unscale(self, scaled: torch.Tensor) -> torch.Tensor:
        """Map scaled values back to the input scale (inverse of :meth:`scale`)."""
        values = self.in_units(scaled)
        return values.round() if self.takes_counts else values

    def in_units(self, scaled: torch.Tensor) -> torch.Tensor:
        """Map expected values back to the input scale; those of counts are not rounded."""
        values = super().unscale(scaled)
        return values.expm1().clamp_min(0) if self.takes_counts else values

    def categorize(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Narrow layer and log-probabilities of the categories, arm by arm.

        Parameters
        ----------
        seen
            Scaled cells as the arms see them, ``(A, n, n_input)``.

        Returns
        -------
        ``(A, n, n_embed)``, ``(A, n, K)``.
        """
        embedded = self.arms.embed(self.observed.standard(seen))
        logits = self.arms.categorize(embedded)
        return embedded, log_categories(logits, self.live, self.sharpness)

    def _get_inference_input(self, tensors: dict, **kwargs) -> dict:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "arms": tensors.get(BATCH_KEYS.ARMS)}

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        batch: torch.Tensor | None = None,
        arms: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute categories and states of cells in all arms.

        Parameters
        ----------
        x
            ``(n, n_input)``.
        batch
            Not used.
        arms
            What each arm sees, scaled, ``(A, n, n_input)``; the cells if None.

        Returns
        -------
        ``scaled`` (n, n_input), ``embedded`` (A, n, n_embed), ``log_arms`` (A, n, K), ``proba``
        (n, K), from the mean log-probability over the arms, and ``expert`` (n,); outside of
        training also ``z`` (n, n_state), the state in the first arm, ``latent`` (n, n_embed), its
        narrow layer, ``batch`` (n, 1), all 0, ``votes`` (n, A), the category of each arm, and
        ``entropy`` (n,), that of ``proba``.
        """
        scaled = self.scale(x)
        seen = scaled.expand(self.n_arms, -1, -1) if arms is None else arms
        embedded, log_arms = self.categorize(seen)
        log_proba = log_arms.mean(0).log_softmax(-1)
        outputs = {
            "scaled": scaled,
            "embedded": embedded,
            "log_arms": log_arms,
            "proba": log_proba.exp(),
            "expert": log_proba.argmax(1),
        }
        if self.training:
            return outputs
        return {
            **outputs,
            "z": self.states(embedded, outputs["expert"])[0][0],
            "latent": embedded[0],
            "batch": x.new_zeros(len(x), 1),
            "votes": log_arms.argmax(-1).T,
            "entropy": category_entropy(log_proba, self.live),
        }

    def states(
        self, embedded: torch.Tensor, expert: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of the states, ``(A, n, n_state)``, in given categories ``(n,)``."""
        loc, log_var = self.arms.states(embedded, self._one_hot(expert))
        return loc, log_var.clamp(*LOG_VARIANCES).exp()

    def _one_hot(self, expert: torch.Tensor) -> torch.Tensor:
        """Categories ``(n,)`` as points of the simplex, the same in all arms, ``(A, n, K)``."""
        one_hot = F.one_hot(expert, self.n_experts).to(self.low.dtype)
        return one_hot.expand(self.n_arms, -1, -1)

    def place(self, scaled: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Where cells lie among all: the narrow layer of the first arm, ``(n, n_embed)``."""
        return self.categorize(scaled.expand(self.n_arms, -1, -1))[0][0]

    def _get_generative_input(self, tensors: dict, inference_outputs: dict, **kwargs) -> dict:
        return {key: inference_outputs[key] for key in ("embedded", "log_arms")}

    @auto_move_data
    def generative(
        self, embedded: torch.Tensor, log_arms: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Each cell through all arms; categories and states are drawn in training.

        Returns
        -------
        ``output`` (A, n, n_output) of the decoders, and ``kl`` (A, n) of the states.
        """
        if self.training:
            category = gumbel_softmax(log_arms, self.temperature, hard=self.hard)
        else:
            category = F.one_hot(log_arms.argmax(-1), self.n_experts).to(embedded.dtype)
        loc, log_var = self.arms.states(embedded, category)
        log_var = log_var.clamp(*LOG_VARIANCES)
        state = loc + torch.randn_like(loc) * (log_var / 2).exp() if self.training else loc
        kl = gaussian_kl(loc.flatten(0, 1), log_var.flatten(0, 1)).view(loc.shape[:2])
        return {"output": self.arms.decode(category, state), "kl": kl}

    def loss(self, tensors: dict, inference_outputs: dict, generative_outputs: dict) -> LossOutput:
        """Error and price of the state of a cell, means over arms, and what couples the arms.

        Categories that are taught are ``(n, A)``.
        """
        log_arms, scaled = inference_outputs["log_arms"], inference_outputs["scaled"]
        counts = tensors[REGISTRY_KEYS.X_KEY] if self.takes_counts else None
        missed = self.observed.missed(generative_outputs["output"], scaled, counts).mean(0)
        kl = generative_outputs["kl"].mean(0)
        terms = {
            "reconstruction": missed.mean(),
            "kl": kl.mean(),
            "entropy": category_entropy(log_arms, self.live).mean(),
        }
        loss = terms["reconstruction"] + self.weights["kl"] * terms["kl"]
        taught = tensors.get(BATCH_KEYS.TAUGHT)
        if self.n_arms > 1:
            where = simplex_coordinates(log_arms, self.live, self.distance)
            terms["coupling"] = coupling(where)
        if taught is not None:
            target = taught.T
            missed_of = F.nll_loss(
                log_arms.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="none"
            )
            # a batch may have no cell that an arm is taught anything about
            n_taught = (target >= 0).sum(1).clamp_min(1)
            terms["taught"] = (missed_of.view_as(target).sum(1) / n_taught).mean()
            loss = loss + TAUGHT_WEIGHT * terms["taught"]
        elif self.n_arms > 1:
            loss = loss + self.weights["coupling"] / 2 * terms["coupling"]
            loss = loss - self.weights["entropy"] * terms["entropy"]
        with torch.no_grad():
            owned = F.one_hot(log_arms.mean(0).argmax(-1), self.n_experts).any(0)
            terms["occupied_experts"] = owned.sum().to(loss.dtype)
        return LossOutput(loss=loss, reconstruction_loss=missed, extra_metrics=terms)

    def _output(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Of the first arm's decoder, ``(n, n_output)``."""
        return self.arms.decode(self._one_hot(expert), z.expand(self.n_arms, -1, -1))[0]

    def decode(
        self, z: torch.Tensor, expert: torch.Tensor, batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode states in their categories to scaled features, ``(n, n_input)``.

        Of counts it is the mean at the typical total of the category.
        """
        output = self._output(z, expert)
        if not self.takes_counts:
            return self.observed.expected(output)
        total = self.totals[expert, :1].exp()
        return self.scale(self.observed.distribution(output, total, arm=0).mean)

    @torch.inference_mode()
    def draw(
        self,
        cluster: np.ndarray,
        batch: np.ndarray,
        rng: np.random.Generator,
        *,
        gate: str = "requested",
        prior: str = "fitted",
        noise: bool = True,
    ) -> dict[str, torch.Tensor]:
        """Draw new cells of a trained module; see :func:`scmoe.tl.generate`.

        Counts are drawn from their distributions, with totals like those of the category.
        """
        if not (self.takes_counts and noise):
            return super().draw(cluster, batch, rng, gate=gate, prior=prior, noise=noise)
        drawn = super().draw(cluster, batch, rng, gate=gate, prior=prior, noise=False)
        expert, device = drawn["expert"], self.means.device
        loc, spread = self.totals[expert].T
        white = torch.from_numpy(rng.standard_normal(len(expert), "float32")).to(device)
        total = (loc + spread * white).exp()[:, None]
        counted = self.observed.distribution(self._output(drawn["z"], expert), total, arm=0)
        counts = draw_counts(counted, rng)
        return {**drawn, "scaled": self.scale(torch.from_numpy(counts).to(device))}

    def gate_of(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Return the arms' log-probabilities of drawn cells, ``(n, K)``."""
        decoded = self.decode(z, expert)
        return self.categorize(decoded.expand(self.n_arms, -1, -1))[1].mean(0)

    @property
    def prior_means(self) -> torch.Tensor:
        """States have a standard normal prior in every category."""
        return torch.zeros_like(self.means)

    @torch.no_grad()
    def take(self, other: CplMixVAEModule, categories: torch.Tensor) -> None:
        """Take the weights of a module whose ``categories[i]`` becomes category ``i``."""
        self.arms.take(other.arms, categories)
        self.observed.load_state_dict(other.observed.state_dict())
        self.low.copy_(other.low)
        self.high.copy_(other.high)

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the categories: the category ``order[i]`` becomes category ``i``."""
        self.arms.take(self.arms, order)
        if self.takes_counts:
            self.totals.copy_(self.totals[order])
        super().reorder(order)


def draw_counts(distribution, rng: np.random.Generator) -> np.ndarray:
    """Draw counts of a (zero-inflated) negative binomial, float32, on the CPU from ``rng``."""
    mean, theta = (
        t.numpy(force=True).astype(float) for t in (distribution.mu, distribution.theta)
    )
    counts = rng.poisson(rng.gamma(theta, mean / theta))
    dropped = getattr(distribution, "zi_probs", None)
    if dropped is not None:
        counts[rng.random(counts.shape) < dropped.numpy(force=True)] = 0
    return counts.astype(np.float32)


def check_counted(likelihood: str, scaling: str, *, counts: bool) -> None:
    """Raise ValueError where only one of likelihood and cells is of counts, or counts are scaled.

    ``counts``: whether the cells were registered as counts.
    """
    of_counts = likelihood in COUNTS
    if of_counts and not counts:
        raise ValueError(
            f"`likelihood={likelihood!r}` is one of counts: register raw counts, "
            "`setup_anndata(adata, counts=True)`."
        )
    if counts and not of_counts:
        raise ValueError(
            f"The cells are registered as counts, which a {likelihood!r} likelihood "
            f"cannot give: use one of {COUNTS}, or transformed values without `counts`."
        )
    if counts and scaling != "none":
        raise ValueError(
            f"Counts are looked at by their logarithms; `scaling={scaling!r}` can't be "
            "used with them."
        )
