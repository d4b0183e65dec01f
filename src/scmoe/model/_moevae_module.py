"""The networks of Santos' mixture of VAEs, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data

from scmoe._core.settings import NOTHING, many, number, one_of, setting, whole
from scmoe.model._module import DescribedModule
from scmoe.model._settings import (
    AS_LAYERS,
    AUTO,
    IMAGE_SHAPE,
    MODEL,
    Activation,
    ModelSettings,
    Network,
    of_cells,
    or_auto,
)
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

if TYPE_CHECKING:
    from collections.abc import Sequence

MANAGER_DROPOUT = 0.1
"""Of a dense manager: it learns labels that are partly wrong."""


NEGLIGIBLE = 1e-6
"""An expert with a smaller share in a cell does not see it."""


@dataclass(frozen=True, kw_only=True)
class MoEVAESettings(ModelSettings):
    """Hyper-parameters of :class:`MoEVAE`."""

    n_latents: tuple[int, ...] | None = of_cells(many(whole(1)) | NOTHING, None)
    n_shared: int = of_cells(whole(0), 0)
    image_shape: tuple[int, ...] | None = of_cells(IMAGE_SHAPE, None)
    isotropic: bool = of_cells(None, default=False)
    n_experts: int | Literal["auto"] = setting(
        or_auto(whole(2)),
        AUTO,
        role=MODEL,
        doc="""K, the number of experts. ``"auto"`` for as many as there are clusters.""",
    )
    n_latent: int | tuple[int, ...] | Literal["auto"] = setting(
        or_auto(whole(1) | many(whole(1))),
        AUTO,
        role=MODEL,
        doc="""
        Latent size of the experts, one for all or one for each. ``"auto"`` for what each of them
        needs.
        """,
    )
    network: Network = setting(
        default="dense",
        role=MODEL,
        doc="""
        ``"dense"``, or ``"conv"`` for images: blocks of convolutions, as many as the size of the
        image wants (eqs. 7 to 9); the shape of an image is read from ``.uns["image_shape"]``, see
        :func:`scmoe.io.from_array`. Sides that are no powers of two are padded, and the padding
        is cropped from the output.
        """,
    )
    n_hidden: int = setting(whole(1), 128, "Units of each hidden layer of dense networks.")
    n_layers: int = setting(whole(0), 2, "Hidden layers of dense networks.")
    width: int | None = setting(
        AS_LAYERS,
        8,
        """
        Filters of the first block of convolutions; each block has twice as many as the one
        before. None for the size of the image, as printed, which is slow without a GPU.
        """,
    )
    activation: Activation = setting(default="elu", doc="Activation function of hidden layers.")
    likelihood: Literal["bernoulli", "gaussian"] | None = setting(
        default=None,
        doc="""
        ``"gaussian"``, with the variance of each marker that an expert does not explain, or
        ``"bernoulli"``. None for ``"bernoulli"`` with images and ``"gaussian"`` otherwise.
        """,
        built=one_of("bernoulli", "gaussian"),
    )
    kl: Literal["elbo", "normalized"] = setting(
        default="elbo",
        doc="""
        Weight of the KL term of a cell against its reconstruction: ``"elbo"`` or
        ``"normalized"``, as Santos words it; see ``scmoe.nn.Autoencoders``.
        """,
    )
    loss: Literal["santos", "damic", "mixae"] = setting(
        default="santos",
        doc="""
        ``"santos"`` (eq. 6), or for comparison ``"damic"``, the likelihood of a mixture (Chazan
        et al. 2019), and ``"mixae"``, eq. 6 with weights that make its terms equally large in
        every batch (Zhang et al. 2017).
        """,
    )
    sample_weight: float = setting(
        number(), 100.0, r"Weight of the sample entropy, :math:`\alpha` of eq. 6."
    )
    batch_weight: float = setting(
        number(), 1.0, r"Weight of the batch entropy, :math:`\beta` of eq. 6."
    )
    balance: Literal["found", "even"] = setting(
        default="found",
        doc="""
        Sizes of clusters that the batch entropy (eq. 5) favours: those that pretraining
        ``"found"``, or ``"even"`` ones, as printed. Without pretraining they are the same.
        """,
    )
    n_routed: int | None = setting(
        AS_LAYERS,
        2,
        """
        Experts that each cell passes through in training, those that its manager prefers: the
        cost of a cell does not depend on K. None for all of them, as printed.
        """,
    )


class MoEVAEModule(DescribedModule):
    """K VAEs, a manager that looks at the input, and the VAE of all cells that came before them.

    Parameters
    ----------
    settings
        Hyper-parameters; ``n_latents`` has the latent size of each expert, ``n_shared`` that of
        the VAE of all cells, 0 for none.
    """

    n_batch = 0
    encode_batch = False
    one_space = False

    settings_class = MoEVAESettings

    def __init__(self, settings: MoEVAESettings):
        n_input, n_latents, shape = settings.n_input, settings.n_latents, settings.image_shape
        n_experts = len(n_latents)
        super().__init__(settings, n_experts, max(n_latents))
        of_experts = (
            *("image_shape", "n_hidden", "n_layers", "width"),
            *("activation", "likelihood", "kl", "isotropic"),
        )
        how = {name: getattr(settings, name) for name in of_experts}
        self.experts = Autoencoders(n_input, n_latents, **how)
        self.shared = (
            Autoencoders(n_input, [settings.n_shared], **how) if settings.n_shared else None
        )
        if shape is None:
            self.manager = MLP(
                n_input,
                settings.n_hidden,
                n_experts,
                n_layers=settings.n_layers,
                dropout=MANAGER_DROPOUT,
                activation=settings.activation,
            )
        else:
            self.manager = DynamicEncoder(
                shape, n_experts, width=settings.width, activation=settings.activation
            )
        self.loss_name = settings.loss
        self.weights = {"sample": settings.sample_weight, "batch": settings.batch_weight}
        self.balance = settings.balance
        self.n_routed = min(settings.n_routed or n_experts, n_experts)
        # shares of the clusters that the manager was taught
        self.register_buffer("expected", torch.full((n_experts,), 1 / n_experts))

    def manage(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the manager's logits of scaled cells, ``(n, n_experts)``."""
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
        """Compute the manager's probabilities, and the codes of cells.

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
        """Decode codes in their experts to scaled markers, ``(n, n_input)``."""
        return self.experts.decode(z, expert)

    def own_columns(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Codes with 0 in the columns that their experts have not."""
        own = torch.arange(z.shape[1], device=z.device) < self.experts.sizes[expert, None]
        return z.masked_fill(~own, 0)

    def gate_of(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Return the manager's logits of drawn codes, once their experts have decoded them."""
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


def latent_sizes(
    n_latent: int | Sequence[int] | str, n_experts: int | str
) -> tuple[int, ...] | None:
    """Return latent sizes, one or K; None for those that are estimated."""
    if n_latent == AUTO:
        return None
    sizes = (n_latent,) if isinstance(n_latent, int) else tuple(n_latent)
    if not sizes:
        raise ValueError('`n_latent` must be "auto" or whole numbers from 1, got none.')
    if not isinstance(n_latent, int) and (n_experts == AUTO or len(sizes) != n_experts):
        raise ValueError(
            f"`n_latent` names {len(sizes)} latent sizes for {n_experts} experts; give one for "
            "each, or one number for all."
        )
    return sizes
