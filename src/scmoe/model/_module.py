"""The networks of MoE-Sim-VAE and its loss."""

from __future__ import annotations

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn

from scmoe.nn import (
    MLP,
    ConvEncoder,
    ConvExperts,
    Experts,
    class_similarity,
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    listed_similarity,
    pair_similarity,
    posterior_kl,
    reconstruction,
)
from scmoe.train import BATCH_KEYS

LEARNED = "learned"
"""Means, and noise of the code, that are parameters of the model."""


class MoESimVAEModule(BaseModuleClass):
    """Encoder, gate and K experts; the parameters are those of :class:`MoESimVAE`.

    With an ``image_shape`` encoder and experts are convolutional.
    """

    def __init__(
        self,
        n_input: int,
        *,
        n_experts: int,
        n_latent: int,
        n_hidden: int,
        encoder_layers: int,
        gate_hidden: int,
        gate_layers: int,
        expert_hidden: int,
        expert_layers: int,
        image_shape: tuple[int, ...] | None,
        encoder_channels: tuple[int, ...],
        expert_channels: tuple[int, ...],
        activation: str,
        batch_norm: bool,
        gate_dropout: float,
        code_noise: float | str,
        likelihood: str,
        means: str,
        kl: str,
        depict_target: str,
        reconstruction_weight: float,
        similarity_weight: float,
        depict_weight: float,
        kl_weight: float,
    ):
        super().__init__()
        n_codes = 2 * n_latent if code_noise == LEARNED else n_latent
        if image_shape is None:
            self.encoder = MLP(
                n_input,
                n_hidden,
                n_codes,
                n_layers=encoder_layers,
                activation=activation,
                batch_norm=batch_norm,
            )
            self.experts = Experts(
                n_experts,
                n_latent,
                expert_hidden,
                n_input,
                n_layers=expert_layers,
                activation=activation,
            )
        else:
            self.encoder = ConvEncoder(
                image_shape,
                n_codes,
                channels=encoder_channels,
                activation=activation,
                batch_norm=batch_norm,
            )
            self.experts = ConvExperts(
                n_experts, n_latent, image_shape, channels=expert_channels, activation=activation
            )
        self.gate = MLP(
            n_latent,
            gate_hidden,
            n_experts,
            n_layers=gate_layers,
            dropout=gate_dropout,
            activation=activation,
        )
        self.n_experts = n_experts
        self.code_noise = code_noise
        self.likelihood = likelihood
        self.kl = kl
        self.depict_target = depict_target
        self.weights = {
            "reconstruction": reconstruction_weight,
            "similarity": similarity_weight,
            "depict": depict_weight,
            "kl": kl_weight,
        }
        self.centres = None
        if means == LEARNED:
            self.centres = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_experts, n_latent)))
        self.register_buffer("low", torch.zeros(n_input))
        self.register_buffer("high", torch.ones(n_input))
        self.register_buffer("live", torch.ones(n_experts, dtype=torch.bool))
        # what the trained clusters look like; experts are drawn from it
        self.register_buffer("size", torch.zeros(n_experts, dtype=torch.long))
        self.register_buffer("means", torch.zeros(n_experts, n_latent))
        self.register_buffer("covariances", torch.zeros(n_experts, n_latent, n_latent))
        self.register_buffer("residuals", torch.zeros(n_experts, n_input))

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """Markers on the [0, 1] scale of the training cells; what lies beyond is clipped."""
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)

    def unscale(self, scaled: torch.Tensor) -> torch.Tensor:
        """The way back to the scale of the input."""
        return self.low + (self.high - self.low) * scaled.clamp(0, 1)

    def expected(self, logits: torch.Tensor) -> torch.Tensor:
        """The scaled markers that an expert's output stands for."""
        return logits.sigmoid() if self.likelihood == "bernoulli" else logits

    def _get_inference_input(self, tensors: dict, **kwargs) -> dict:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    @auto_move_data
    def inference(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Codes and gate.

        Training adds Gaussian noise to the code, as the paper's fixed-variance encoder does;
        a trained model does not, so that predictions repeat, and its retired experts get no
        cell.

        Returns
        -------
        ``scaled`` (n, n_input), ``z`` and ``loc`` (n, n_latent), the code with and without
        noise, ``log_scale`` (n, n_latent) where the noise is learned, ``logits`` and ``proba``
        (n, n_experts), ``expert`` (n,).
        """
        scaled = self.scale(x)
        outputs = {"scaled": scaled}
        loc = self.encoder(scaled)
        noise = self.code_noise
        if noise == LEARNED:
            loc, log_scale = loc.chunk(2, dim=1)
            outputs["log_scale"] = log_scale
            noise = log_scale.exp()
        z = loc + noise * torch.randn_like(loc) if self.training else loc
        logits = self.gate(z)
        if not self.training:
            logits = logits.masked_fill(~self.live, -torch.inf)
        return {
            **outputs,
            "loc": loc,
            "z": z,
            "logits": logits,
            "proba": logits.softmax(1),
            "expert": logits.argmax(1),
        }

    def _get_generative_input(self, tensors: dict, inference_outputs: dict, **kwargs) -> dict:
        return {key: inference_outputs[key] for key in ("z", "expert")}

    @auto_move_data
    def generative(self, z: torch.Tensor, expert: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each code through its expert: ``logits`` (n, n_input) of the scaled markers."""
        return {"logits": self.experts(z, expert)}

    def loss(self, tensors: dict, inference_outputs: dict, generative_outputs: dict) -> LossOutput:
        """The weighted sum of eq. 11, and its terms as metrics."""
        z, proba = inference_outputs["z"], inference_outputs["proba"]
        expert = inference_outputs["expert"]
        reconstructed = reconstruction(
            generative_outputs["logits"], inference_outputs["scaled"], self.likelihood
        )
        similarity, similar_pairs = self._similarity(tensors, proba)
        noisy = self.gate(z, noisy=self.training)
        terms = {
            "reconstruction": reconstructed.mean(),
            "similarity": similarity,
            "depict": depict(depict_target(proba, self.depict_target), noisy),
            "kl": self._kl(inference_outputs),
        }
        loss = sum(self.weights[name] * term for name, term in terms.items())
        occupied = (torch.bincount(expert, minlength=self.n_experts) > 0).sum()
        return LossOutput(
            loss=loss,
            reconstruction_loss=reconstructed,
            extra_metrics={
                **terms,
                "occupied_experts": occupied.to(loss.dtype),
                "similar_pairs": similar_pairs,
            },
        )

    def _kl(self, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Distance of the clusters from unit Gaussians; with learned noise, of every cell."""
        z, expert = outputs["z"], outputs["expert"]
        means = cluster_means(z, outputs["proba"]) if self.centres is None else self.centres
        if self.code_noise == LEARNED:
            return posterior_kl(outputs["loc"], outputs["log_scale"], expert, means)
        return cluster_kl(z, expert, means, self.kl)

    def _similarity(self, tensors: dict, proba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The similarity term, and what it knows: similar partners, or classes, of a cell."""
        zero = proba.new_zeros(())
        loss, known = zero, zero
        share = tensors.get(BATCH_KEYS.CLASS_SHARE, zero)
        if BATCH_KEYS.CLASSES in tensors:
            classes = tensors[BATCH_KEYS.CLASSES]
            loss = share * class_similarity(proba, classes)
            known = (~classes.isnan().any(1)).to(proba.dtype).mean()
        target = tensors.get(BATCH_KEYS.SIMILARITY)
        if target is None:
            return loss, known
        n = len(proba)
        if BATCH_KEYS.PAIRS in tensors:
            pairs, weight = tensors[BATCH_KEYS.PAIRS], tensors[BATCH_KEYS.WEIGHT]
            term = listed_similarity(proba, pairs, target, weight)
            partners = (n - 1) * (weight * target).sum() / weight.sum().clamp_min(1)
        else:
            term = pair_similarity(proba, target)
            partners = (target.nansum() - target.diagonal().nansum()) / n
        return loss + (1 - share) * term, known + partners

    @torch.no_grad()
    def describe(self, expert: torch.Tensor, z: torch.Tensor, proba: torch.Tensor) -> None:
        """Fit what cells are drawn from: sizes, means (eq. 6) and covariances of the clusters.

        A cluster of few cells borrows from the spread that clusters have on average.

        Parameters
        ----------
        expert, z, proba
            Expert, code and probabilities of every training cell.
        """
        n, d = z.shape
        size = torch.bincount(expert, minlength=self.n_experts)
        means = cluster_means(z, proba)
        centred = z - means[expert]
        scatter = torch.stack(
            [c.T @ c for c in (centred[expert == k] for k in range(self.n_experts))]
        )
        pooled = scatter.sum(0) / n
        self.size.copy_(size)
        self.means.copy_(means)
        self.covariances.copy_((scatter + d * pooled) / (size + d)[:, None, None])

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        for tensor in [
            self.gate.out.weight,
            self.gate.out.bias,
            *self.experts.weights,
            *self.experts.biases,
            *([] if self.centres is None else [self.centres]),
            self.live,
            self.size,
            self.means,
            self.covariances,
            self.residuals,
        ]:
            tensor.copy_(tensor[order])
