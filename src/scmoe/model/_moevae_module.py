"""The networks of Santos' mixture of VAEs, and its loss."""

from __future__ import annotations

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data

from scmoe.model._described import DescribedModule
from scmoe.nn import (
    MLP,
    Autoencoders,
    DynamicEncoder,
    batch_entropy,
    damic,
    mixae_weights,
    sample_entropy,
    weighted_distance,
)

LOSSES = ("santos", "damic", "mixae")
BALANCES = ("found", "even")
"""Which loss, and which sizes of clusters the batch entropy pulls to."""

MANAGER_DROPOUT = 0.1
"""Of a dense manager: it learns labels that are partly wrong."""


NEGLIGIBLE = 1e-6
"""An expert with a smaller share in a cell does not see it."""


class MoEVAEModule(DescribedModule):
    """K VAEs, a manager that looks at the input, and the VAE of all cells that came before them.

    The parameters are those of :class:`MoEVAE`; ``n_latents`` has the latent size of each expert,
    ``n_shared`` that of the VAE of all cells, 0 for none.
    """

    n_batch = 0
    encode_batch = False
    one_space = False

    def __init__(
        self,
        n_input: int,
        *,
        n_latents: tuple[int, ...],
        n_shared: int,
        image_shape: tuple[int, ...] | None,
        n_hidden: int,
        n_layers: int,
        width: int | None,
        activation: str,
        likelihood: str,
        kl: str,
        loss: str,
        sample_weight: float,
        batch_weight: float,
        balance: str,
        n_routed: int | None,
        isotropic: bool = False,
    ):
        n_experts = len(n_latents)
        super().__init__(n_input, n_experts, max(n_latents), n_batch=1, likelihood=likelihood)
        shape = {
            "image_shape": image_shape,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "width": width,
            "activation": activation,
            "likelihood": likelihood,
            "kl": kl,
            "isotropic": isotropic,
        }
        self.experts = Autoencoders(n_input, n_latents, **shape)
        self.shared = Autoencoders(n_input, [n_shared], **shape) if n_shared else None
        if image_shape is None:
            self.manager = MLP(
                n_input,
                n_hidden,
                n_experts,
                n_layers=n_layers,
                dropout=MANAGER_DROPOUT,
                activation=activation,
            )
        else:
            self.manager = DynamicEncoder(
                image_shape, n_experts, width=width, activation=activation
            )
        self.loss_name = loss
        self.weights = {"sample": sample_weight, "batch": batch_weight}
        self.balance = balance
        self.n_routed = n_experts if n_routed is None else min(n_routed, n_experts)
        # shares of the clusters that the manager was taught
        self.register_buffer("expected", torch.full((n_experts,), 1 / n_experts))

    def manage(self, scaled: torch.Tensor) -> torch.Tensor:
        """What the manager says of scaled cells, logits ``(n, n_experts)``."""
        standard = (scaled - self.experts.centre) / self.experts.spread
        if isinstance(self.manager, MLP):
            return self.manager(standard, noisy=self.training)
        return self.manager(standard)

    def _get_inference_input(self, tensors: dict, **kwargs) -> dict:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, batch: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Manager and codes.

        Returns
        -------
        ``scaled`` (n, n_input), ``logits`` and ``proba`` (n, n_experts), ``expert`` (n,); in a
        trained model also ``z`` (n, max d_k), the code of each cell in its expert, ``latent``
        (n, n_shared), its code among all cells (``z`` where there was no pretraining), and
        ``batch`` (n, 1), all 0.
        """
        scaled = self.scale(x)
        logits = self.manage(scaled)
        if not self.training:
            logits = logits.masked_fill(~self.live, -torch.inf)
        outputs = {
            "scaled": scaled,
            "logits": logits,
            "proba": logits.softmax(1),
            "expert": logits.argmax(1),
        }
        if self.training:
            return outputs
        z, _ = self.experts.encode(scaled, outputs["expert"])
        return {
            **outputs,
            "z": z,
            "latent": self.place(scaled, z),
            "batch": x.new_zeros(len(x), 1),
        }

    def place(self, scaled: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Where cells lie among all, ``(n, n_shared)``; their own codes without pretraining."""
        if self.shared is None:
            return z
        return self.shared.encode(scaled, z.new_zeros(len(z), dtype=torch.int64))[0]

    def _get_generative_input(self, tensors: dict, inference_outputs: dict, **kwargs) -> dict:
        return {key: inference_outputs[key] for key in ("scaled", "logits")}

    @auto_move_data
    def generative(self, scaled: torch.Tensor, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each cell through the experts that its manager prefers.

        Returns
        -------
        ``log_share`` (n, m), the log-probabilities of the ``n_routed`` most probable experts
        among each other, and ``distance``, ``reconstruction`` and ``kl`` (n, m), which are 0
        where the share is next to nothing.
        """
        top, expert = logits.topk(self.n_routed, dim=1)
        log_share = top.log_softmax(1)
        share = log_share.exp()
        # what an expert has no share in teaches it nothing, and its gradients would be numbers so
        # small that processors are slow with them; DAMIC lets the distances change the shares
        told = torch.ones_like(share) if self.loss_name == "damic" else share > NEGLIGIBLE
        cell, place = told.nonzero(as_tuple=True)
        parts = self.experts.distance(
            scaled.index_select(0, cell), expert[cell, place], share[cell, place]
        )
        nothing = torch.zeros_like(share)
        return {
            "log_share": log_share,
            **{
                name: nothing.index_put((cell, place), parts[name])
                for name in ("distance", "reconstruction", "kl")
            },
        }

    def loss(
        self,
        tensors: dict,
        inference_outputs: dict,
        generative_outputs: dict,
        hardness: float = 1.0,
    ) -> LossOutput:
        """Eq. 6 of Santos or one of its relatives; all terms as metrics."""
        log_share, distance = generative_outputs["log_share"], generative_outputs["distance"]
        share = log_share.exp()
        expected = self.expected if self.balance == "found" else None
        terms = {
            "distance": weighted_distance(share, distance),
            "sample_entropy": sample_entropy(inference_outputs["logits"]),
            "batch_entropy": batch_entropy(inference_outputs["proba"], expected),
        }
        if self.loss_name == "damic":
            # a likelihood is of all features together
            n_input = inference_outputs["scaled"].shape[1]
            loss = damic(log_share, n_input * distance) / n_input
        else:
            alpha, beta = self.weights["sample"] * hardness, self.weights["batch"]
            if self.loss_name == "mixae":
                alpha, beta = mixae_weights(*terms.values())
            loss = (
                terms["distance"] + alpha * terms["sample_entropy"] + beta * terms["batch_entropy"]
            )
        with torch.no_grad():
            expert = inference_outputs["expert"]
            occupied = loss.new_zeros(self.n_experts).index_fill_(0, expert, 1).sum()
            parts = {
                name: weighted_distance(share, generative_outputs[name])
                for name in ("reconstruction", "kl")
            }
        return LossOutput(
            loss=loss,
            reconstruction_loss=(share * distance).sum(1),
            extra_metrics={**terms, **parts, "occupied_experts": occupied},
        )

    def distances(self, scaled: torch.Tensor) -> torch.Tensor:
        """How badly each expert explains each cell ``(n, n_input)``: ``(n, n_experts)``."""
        each = (torch.full((len(scaled),), k, device=scaled.device) for k in range(self.n_experts))
        return torch.stack(
            [self.experts.distance(scaled, expert)["distance"] for expert in each], dim=1
        )

    def decode(
        self, z: torch.Tensor, expert: torch.Tensor, batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The scaled markers that codes stand for in their experts, ``(n, n_input)``."""
        return self.experts.decode(z, expert)

    def own_columns(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Codes with 0 in the columns that their experts have not."""
        own = torch.arange(z.shape[1], device=z.device) < self.experts.sizes[expert, None]
        return z.masked_fill(~own, 0)

    def gate_of(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """What the manager says of drawn cells: it looks at what the experts make of the codes."""
        return self.manage(self.decode(z, expert))

    @property
    def prior_means(self) -> torch.Tensor:
        """Every expert has a standard normal prior."""
        return torch.zeros_like(self.means)

    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        self.experts.reorder(order)
        with torch.no_grad():
            for tensor in (self.manager.out.weight, self.manager.out.bias, self.expected):
                tensor.copy_(tensor[order])
        super().reorder(order)
