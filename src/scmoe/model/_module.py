"""The networks of MoE-Sim-VAE and its loss."""

from __future__ import annotations

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data

from scmoe.nn import (
    MLP,
    Experts,
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    listed_similarity,
    pair_similarity,
    reconstruction,
)
from scmoe.train import BATCH_KEYS


class MoESimVAEModule(BaseModuleClass):
    """Encoder, gate and K experts; the parameters are those of :class:`MoESimVAE`."""

    def __init__(
        self,
        n_input: int,
        *,
        n_experts: int,
        n_latent: int,
        n_hidden: int,
        encoder_layers: int,
        gate_layers: int,
        expert_layers: int,
        activation: str,
        gate_dropout: float,
        code_noise: float,
        reconstruction_weight: float,
        similarity_weight: float,
        depict_weight: float,
        kl_weight: float,
    ):
        super().__init__()
        self.encoder = MLP(
            n_input, n_hidden, n_latent, n_layers=encoder_layers, activation=activation
        )
        self.gate = MLP(
            n_latent,
            n_hidden,
            n_experts,
            n_layers=gate_layers,
            dropout=gate_dropout,
            activation=activation,
        )
        self.experts = Experts(
            n_experts, n_latent, n_hidden, n_input, n_layers=expert_layers, activation=activation
        )
        self.n_experts = n_experts
        self.code_noise = code_noise
        self.weights = {
            "reconstruction": reconstruction_weight,
            "similarity": similarity_weight,
            "depict": depict_weight,
            "kl": kl_weight,
        }
        self.register_buffer("low", torch.zeros(n_input))
        self.register_buffer("high", torch.ones(n_input))
        self.register_buffer("means", torch.zeros(n_experts, n_latent))
        self.register_buffer("live", torch.ones(n_experts, dtype=torch.bool))

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """Markers on the [0, 1] scale of the training cells; what lies beyond is clipped."""
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)

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
        ``scaled`` (n, n_input), ``z`` (n, n_latent), ``logits`` and ``proba`` (n, n_experts),
        ``expert`` (n,).
        """
        scaled = self.scale(x)
        z = self.encoder(scaled)
        if self.training:
            z = z + self.code_noise * torch.randn_like(z)
        logits = self.gate(z)
        if not self.training:
            logits = logits.masked_fill(~self.live, -torch.inf)
        return {
            "scaled": scaled,
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
        reconstructed = reconstruction(generative_outputs["logits"], inference_outputs["scaled"])
        similarity, similar_pairs = self._similarity(tensors, proba)
        noisy = self.gate(z, noisy=self.training)
        terms = {
            "reconstruction": reconstructed.mean(),
            "similarity": similarity,
            "depict": depict(depict_target(proba), noisy),
            "kl": cluster_kl(z, expert, cluster_means(z, proba)),
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

    def _similarity(self, tensors: dict, proba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The similarity term, and the similar partners of a cell; 0 where none is known."""
        target = tensors.get(BATCH_KEYS.SIMILARITY)
        n = len(proba)
        if target is None:
            zero = proba.new_zeros(())
            return zero, zero
        if BATCH_KEYS.PAIRS not in tensors:
            return pair_similarity(proba, target), (target.sum() - target.trace()) / n
        pairs, weight = tensors[BATCH_KEYS.PAIRS], tensors[BATCH_KEYS.WEIGHT]
        partners = (n - 1) * (weight * target).sum() / weight.sum()
        return listed_similarity(proba, pairs, target, weight), partners

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        for tensor in [
            self.gate.out.weight,
            self.gate.out.bias,
            *self.experts.weights,
            *self.experts.biases,
            self.means,
            self.live,
        ]:
            tensor.copy_(tensor[order])
