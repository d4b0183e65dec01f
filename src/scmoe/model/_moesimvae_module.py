"""The networks of MoE-Sim-VAE and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from torch import nn

from scmoe._core.settings import SHARE, Kind, many, number, setting, whole
from scmoe.model._module import DescribedModule
from scmoe.model._settings import (
    AS_LAYERS,
    IMAGE_SHAPE,
    MODEL,
    Activation,
    ModelSettings,
    Network,
    estimated,
    of_cells,
)
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
    in_blocks,
    listed_similarity,
    of_one_device,
    pair_similarity,
    posterior_kl,
    reconstruction,
)
from scmoe.train import BATCH_KEYS

LEARNED = "learned"
"""Means, and noise of the code, that are parameters of the model."""


@dataclass(frozen=True, kw_only=True)
class MoESimVAESettings(ModelSettings):
    """Hyper-parameters of :class:`MoESimVAE`."""

    n_batch: int = of_cells(whole(1), 1)
    image_shape: tuple[int, ...] | None = of_cells(IMAGE_SHAPE, None)
    n_experts: int | Literal["auto"] | None = estimated(
        whole(2),
        None,
        """
        K, an upper bound for the number of clusters: surplus experts end without cells. None for
        two more than the similarity has groups, or 25 where it has none; ``"auto"`` for as many
        as :func:`scmoe.tl.n_clusters` finds. Both are known when the model is trained.
        """,
        known_later=True,
    )
    n_latent: int | Literal["auto"] = estimated(
        whole(1),
        9,
        """Dimensions of the latent space. ``"auto"`` for as many as :func:`scmoe.tl.latent_dim`
        finds.""",
    )
    n_hidden: int = setting(
        whole(1),
        64,
        "Units of each hidden layer, unless ``gate_hidden`` or ``expert_hidden`` say.",
    )
    encoder_layers: int = setting(whole(0), 2, "Hidden layers of the encoder.")
    gate_hidden: int | None = setting(AS_LAYERS, None, "Units of each hidden layer of the gate.")
    gate_layers: int = setting(whole(0), 2, "Hidden layers of the gate.")
    expert_hidden: int | None = setting(
        AS_LAYERS, None, "Units of each hidden layer of each expert."
    )
    expert_layers: int = setting(whole(0), 1, "Hidden layers of each expert.")
    network: Network = setting(
        default="dense",
        role=MODEL,
        doc="""
        ``"dense"``, or ``"conv"`` for images: encoder and experts of the paper's supplement
        (B.2); the shape of an image is read from ``.uns["image_shape"]``, see
        :func:`scmoe.io.from_array`.
        """,
    )
    encoder_channels: tuple[int, ...] = setting(
        many(whole(1)),
        (64, 128, 128, 64, 8),
        "Widths of the encoder's convolutions, as many as the default has.",
    )
    expert_channels: tuple[int, ...] = setting(
        many(whole(1)),
        (8, 128, 64, 32),
        "Widths of each expert's convolutions, as many as the default has.",
    )
    activation: Activation = setting(default="elu", doc="Activation function of hidden layers.")
    batch_norm: bool = setting(
        default=False,
        doc="""
        Batch normalisation in the encoder. The experts have none: few cells of a batch reach
        each of them.
        """,
    )
    gate_dropout: float = setting(SHARE, 0.1, "Dropout of the gate's noisy pass (DEPICT, eq. 8).")
    code_noise: float | Literal["learned"] = setting(
        Kind(
            f'a number or "{LEARNED}", not below 0',
            lambda v: number().fits(v) or (isinstance(v, str) and v == LEARNED),
        ),
        0.3,
        """
        Standard deviation of the noise on the code during training (1 in the paper), or
        ``"learned"``: the encoder gives it for each cell and dimension, and the KL term compares
        each cell with its cluster.
        """,
    )
    likelihood: Literal["bernoulli", "gaussian"] = setting(
        default="bernoulli",
        doc="""``"bernoulli"`` (cross-entropy, eq. 4) or ``"gaussian"`` (squared error).""",
    )
    means: Literal["em", "learned"] = setting(
        default="em",
        doc="""
        Means of the clusters in the KL term: ``"em"``, those of the batch (eq. 6), or
        ``"learned"``, parameters of the model as in the authors' code.
        """,
    )
    kl: Literal["released", "paper"] = setting(
        default="released",
        doc="""
        Direction of the KL term: ``"released"``, that of the authors' code, or ``"paper"``; see
        ``scmoe.nn.cluster_kl``.
        """,
    )
    depict_target: Literal["paper", "released", "dec"] = setting(
        default="paper",
        doc="""
        Target of the DEPICT term: ``"paper"`` (eq. 9), ``"released"`` or ``"dec"``; see
        ``scmoe.nn.depict_target``.
        """,
    )
    encode_batch: bool = setting(
        default=False,
        doc="""
        Whether the encoder sees the batch of a cell, where ``batch_key`` was registered (as
        ``encode_covariates`` of scvi-tools). The experts always do. Without it cells of unknown
        batches can be assigned.
        """,
    )
    reconstruction_weight: float = setting(
        number(), 1.0, "Weight of the reconstruction in the loss (eq. 11)."
    )
    similarity_weight: float = setting(number(), 1.0, "Weight of the similarity term (eq. 11).")
    depict_weight: float = setting(
        number(), 0.05, r"Weight of the DEPICT term, :math:`\pi_2` of eq. 11."
    )
    kl_weight: float = setting(number(), 0.01, r"Weight of the KL term, :math:`\pi_1` of eq. 11.")


class MoESimVAEModule(DescribedModule):
    """Encoder, gate and K experts.

    With an ``image_shape`` encoder and experts are convolutional.

    Parameters
    ----------
    settings
        Hyper-parameters, in which all numbers are known.
    """

    settings_class = MoESimVAESettings

    def __init__(self, settings: MoESimVAESettings):
        n_input, n_experts, n_latent = settings.n_input, settings.n_experts, settings.n_latent
        super().__init__(settings, n_experts, n_latent, n_batch=settings.n_batch)
        n_codes = 2 * n_latent if settings.code_noise == LEARNED else n_latent
        # how many columns say which batch a cell is from: none where there is one batch
        self.n_batch = settings.n_batch if settings.n_batch > 1 else 0
        self.encode_batch = settings.encode_batch and self.n_batch > 0
        n_decoded = n_latent + self.n_batch
        if settings.image_shape is None:
            self.encoder = MLP(
                n_input + self.n_batch * self.encode_batch,
                settings.n_hidden,
                n_codes,
                n_layers=settings.encoder_layers,
                activation=settings.activation,
                batch_norm=settings.batch_norm,
            )
            self.experts = Experts(
                n_experts,
                n_decoded,
                settings.expert_hidden or settings.n_hidden,
                n_input,
                n_layers=settings.expert_layers,
                activation=settings.activation,
            )
        else:
            self.encoder = ConvEncoder(
                settings.image_shape,
                n_codes,
                channels=settings.encoder_channels,
                activation=settings.activation,
                batch_norm=settings.batch_norm,
            )
            self.experts = ConvExperts(
                n_experts,
                n_decoded,
                settings.image_shape,
                channels=settings.expert_channels,
                activation=settings.activation,
            )
        self.gate = MLP(
            n_latent,
            settings.gate_hidden or settings.n_hidden,
            n_experts,
            n_layers=settings.gate_layers,
            dropout=settings.gate_dropout,
            activation=settings.activation,
        )
        self.code_noise = settings.code_noise
        # of sums over a batch; a training on several devices sums over them
        self.total = of_one_device
        self.kl = settings.kl
        self.depict_target = settings.depict_target
        self.weights = {
            "reconstruction": settings.reconstruction_weight,
            "similarity": settings.similarity_weight,
            "depict": settings.depict_weight,
            "kl": settings.kl_weight,
            # only of a model that has started from groups
            "groups": settings.similarity_weight,
        }
        self.centres = None
        if settings.means == LEARNED:
            self.centres = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_experts, n_latent)))

    def expected(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert the output of an expert to scaled markers."""
        return logits.sigmoid() if self.likelihood == "bernoulli" else logits

    def _get_inference_input(self, tensors: dict, **kwargs) -> dict:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "batch": tensors.get(REGISTRY_KEYS.BATCH_KEY)}

    def with_batch(self, values: torch.Tensor, batch: torch.Tensor | None) -> torch.Tensor:
        """Append the batch of each cell (None: the first), one-hot: ``(n, d + n_batch)``."""
        if not self.n_batch:
            return values
        batch = values.new_zeros(len(values)) if batch is None else batch
        hot = F.one_hot(batch.long().view(-1), self.n_batch)
        return torch.cat([values, hot.to(values)], dim=1)

    def encoder_input(self, scaled: torch.Tensor, batch: torch.Tensor | None) -> torch.Tensor:
        """Return the input of the encoder: scaled markers, and the batch if it is encoded."""
        return self.with_batch(scaled, batch) if self.encode_batch else scaled

    def encode(self, scaled: torch.Tensor, batch: torch.Tensor | None) -> torch.Tensor:
        """Codes of scaled markers without noise, ``(n, n_latent)``."""
        return self.encoder(self.encoder_input(scaled, batch))[:, : self.means.shape[1]]

    @auto_move_data
    def inference(
        self, x: torch.Tensor, batch: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Codes and gate.

        Training adds Gaussian noise to the code, as the paper's fixed-variance encoder does;
        a trained model does not, so that predictions repeat, and its retired experts get no
        cell.

        Returns
        -------
        ``scaled`` (n, n_input), ``batch`` (n, 1), ``z`` and ``loc`` (n, n_latent), the code with
        and without noise, ``latent``, where the cell lies among all, here ``z``, ``log_scale``
        (n, n_latent) where the noise is learned, ``logits`` and ``proba`` (n, n_experts),
        ``expert`` (n,); in training also ``noisy`` (n, n_experts), the logits with dropout.
        """
        batch = x.new_zeros(len(x), 1) if batch is None else batch
        scaled = self.scale(x)
        outputs = {"scaled": scaled, "batch": batch}
        loc = self.encoder(self.encoder_input(scaled, batch))
        noise = self.code_noise
        if noise == LEARNED:
            loc, log_scale = loc.chunk(2, dim=1)
            outputs["log_scale"] = log_scale
            noise = log_scale.exp()
        z = loc + noise * torch.randn_like(loc) if self.training else loc
        if self.training:
            logits, outputs["noisy"] = self.gate.clean_and_noisy(z)
        else:
            logits = self.gate(z).masked_fill(~self.live, -torch.inf)
        return {
            **outputs,
            "loc": loc,
            "z": z,
            "latent": z,
            "logits": logits,
            "proba": logits.softmax(1),
            "expert": logits.argmax(1),
        }

    def _get_generative_input(self, tensors: dict, inference_outputs: dict, **kwargs) -> dict:
        return {key: inference_outputs[key] for key in ("z", "expert", "batch")}

    @auto_move_data
    def generative(
        self, z: torch.Tensor, expert: torch.Tensor, batch: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Each code through its expert: ``logits`` (n, n_input) of the scaled markers."""
        return {"logits": self.experts(self.with_batch(z, batch), expert)}

    def loss(self, tensors: dict, inference_outputs: dict, generative_outputs: dict) -> LossOutput:
        """Compute the loss (eq. 11), with its terms as metrics.

        A model that has started from groups goes on learning them: the cross-entropy of its gate
        with the groups of the batch is one term more. Pairs alone would let small groups merge.
        """
        z, proba = inference_outputs["z"], inference_outputs["proba"]
        expert = inference_outputs["expert"]
        reconstructed = reconstruction(
            generative_outputs["logits"], inference_outputs["scaled"], self.likelihood
        )
        similarity, similar_pairs = self._similarity(tensors, proba)
        noisy = inference_outputs["noisy"] if self.training else self.gate(z)
        terms = {
            "reconstruction": (tensors.get(BATCH_KEYS.FREQUENCY, 1) * reconstructed).mean(),
            "similarity": similarity,
            "depict": depict(depict_target(proba, self.depict_target, self.total), noisy),
            "kl": self._kl(inference_outputs),
        }
        if BATCH_KEYS.GROUPS in tensors:
            groups = tensors[BATCH_KEYS.GROUPS]
            groups = F.pad(groups, (0, self.n_experts - groups.shape[1]))
            terms["groups"] = F.cross_entropy(inference_outputs["logits"], groups)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        occupied = loss.new_zeros(self.n_experts).index_fill_(0, expert, 1).sum()
        return LossOutput(
            loss=loss,
            reconstruction_loss=reconstructed,
            extra_metrics={
                **terms,
                "occupied_experts": occupied,
                "similar_pairs": similar_pairs,
            },
        )

    def _kl(self, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Distance of the clusters from unit Gaussians; with learned noise, of every cell."""
        z, expert = outputs["z"], outputs["expert"]
        means = self.centres
        if means is None:
            means = cluster_means(z, outputs["proba"], self.total)
        if self.code_noise == LEARNED:
            return posterior_kl(outputs["loc"], outputs["log_scale"], expert, means)
        return cluster_kl(z, expert, means, self.kl, self.total)

    def _similarity(self, tensors: dict, proba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the similarity term, and the mean number of similar partners of a cell."""
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
            size = target.shape[-1]
            target = target.view(-1, size, size)
            term = pair_similarity(in_blocks(proba, size), target)
            alike = target.nansum() - target.diagonal(dim1=1, dim2=2).nansum()
            partners = (n - 1) / max(size - 1, 1) * alike / (len(target) * size)
        return loss + (1 - share) * term, known + partners

    def decode(
        self, z: torch.Tensor, expert: torch.Tensor, batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode codes in their experts to scaled markers, ``(n, n_input)``."""
        return self.expected(self.generative(z, expert, batch)["logits"])

    def gate_of(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Return the gate's logits of codes, ``(n, n_experts)``."""
        return self.gate(z)

    @property
    def prior_means(self) -> torch.Tensor | None:
        """The means of the clusters; None without a KL term."""
        return self.means if self.weights["kl"] > 0 else None

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        for tensor in [
            self.gate.out.weight,
            self.gate.out.bias,
            *self.experts.weights,
            *self.experts.biases,
            *([] if self.centres is None else [self.centres]),
        ]:
            tensor.copy_(tensor[order])
        super().reorder(order)
