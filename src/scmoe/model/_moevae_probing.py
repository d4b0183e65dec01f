"""What the experts of a mixture know: codes of their own, reconstructions, walks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scmoe._core.keys import Key
from scmoe._core.settings import is_whole
from scmoe.model._predict import Predictions, of_cells
from scmoe.model._states import as_cells, check_steps, expert_of, living, steps_as_cells, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

BY = ("manager", "reconstruction")
"""Who decides to which cluster a cell belongs."""


class Probing(Predictions):
    """Predictions of a mixture of VAEs, and looks into its experts.

    The model's module has ``distances`` and ``experts``.
    """

    @of_cells
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        by: str = "manager",
    ) -> np.ndarray:
        """Predict the cluster of each cell.

        Parameters
        ----------
        {cells}
        by
            ``"manager"``: the most probable cluster. ``"reconstruction"``: the cluster of the
            expert which explains the cell best, by the distance of eq. 3; every cell passes
            through all experts.

        Returns
        -------
        ``(n,)`` str.

        Raises
        ------
        {errors}
            Also for another ``by``.
        """
        if by not in BY:
            raise ValueError(f"`by` must be one of {BY}, got {by!r}.")
        if by == "manager":
            return super().predict(adata, indices, batch_size)
        distance = self.get_distances(adata, indices, batch_size).to_numpy()
        return np.asarray(self.cluster_names_, dtype=object)[distance.argmin(1)]

    @of_cells
    def get_distances(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return how badly each expert explains each cell (eq. 3).

        The sum of the reconstruction error and of the KL term of the code, both divided by the
        number of markers.

        Parameters
        ----------
        {cells}

        Returns
        -------
        Cells x experts float32; infinite for experts that were retired.

        Raises
        ------
        {errors}
        """

        def distances(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
            distance = self.module.distances(outputs["scaled"])
            return distance.masked_fill(~self.module.live, torch.inf)

        values = self._collect(distances, adata, indices, batch_size)
        return self._by_cluster(values, adata, indices)

    @of_cells
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        cluster: str | None = None,
    ) -> np.ndarray:
        """Return the latent representation of cells.

        Parameters
        ----------
        {cells}
        cluster
            None for the codes of the VAE of all cells, ``(n, n_shared)``, which can be compared
            with each other (without pretraining: of the expert of each cell, which can't). Else
            the codes in the expert of this cluster, ``(n, d_k)``, of all cells that are given.

        Returns
        -------
        float32.

        Raises
        ------
        {errors}
            KeyError also for an unknown ``cluster``.
        """
        if cluster is None:
            return super().get_latent_representation(adata, indices, batch_size)
        k = expert_of(self.trained, cluster)

        def code(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
            scaled = outputs["scaled"]
            which = torch.full((len(scaled),), k, device=scaled.device)
            return self.module.experts.encode(scaled, which)[0]

        codes = self._collect(code, adata, indices, batch_size)
        return codes[:, : self.module.experts.n_latents[k]]

    def reconstruct(
        self, cells: AnnData | np.ndarray, clusters: Sequence[str] | None = None
    ) -> AnnData:
        """Reconstruct the same cells by each expert.

        Parameters
        ----------
        cells
            Cells with the markers of the training cells, or their values, ``(n, n_vars)`` or
            ``(n_vars,)`` in the order of the markers: any probe, such as an image of ones.
        clusters
            Whose experts; all with cells by default.

        Returns
        -------
        A row for each cell and expert, on the scale of the training values, with
        ``.obs["probe"]`` (name of the cell), ``.obs["expert"]`` and ``.obs["distance"]`` (eq. 3).

        Raises
        ------
        KeyError
            Missing markers; no such cluster.
        ValueError
            Values of another length, NaN or infinite ones; no cluster, or one twice.
        """
        self._check_if_trained(warn=False)
        if not isinstance(cells, AnnData):
            values = np.atleast_2d(np.asarray(cells, dtype=np.float32))
            if values.ndim != 2 or values.shape[1] != self.adata.n_vars:
                raise ValueError(
                    f"A probe has {self.adata.n_vars} values, one for each marker; got an array "
                    f"of shape {np.shape(cells)}."
                )
            layer = self.registry["setup_args"]["layer"]
            var = pd.DataFrame(index=self.adata.var_names)
            layers = {} if layer is None else {layer: values}
            cells = AnnData(values, var=var, layers=layers)
        asked = [clusters] if isinstance(clusters, str) else clusters
        names = living(self.trained) if asked is None else [str(c) for c in asked]
        if not names or len(set(names)) < len(names):
            raise ValueError("`clusters` is empty or names a cluster twice.")
        experts = [expert_of(self.trained, name) for name in names]
        made, distances = [], []
        with torch.inference_mode():
            for outputs in self._infer(cells, None, None):
                scaled = outputs["scaled"]
                of_part = []
                for k in experts:
                    which = torch.full((len(scaled),), k, device=scaled.device)
                    code, _ = self.module.experts.encode(scaled, which)
                    of_part.append(self.module.unscale(self.module.decode(code, which)).cpu())
                made.append(torch.stack(of_part, 1))
                distances.append(self.module.distances(scaled)[:, experts].cpu())
        probes = np.repeat(cells.obs_names.to_numpy(), len(experts))
        obs = {
            "probe": pd.Categorical(probes, categories=list(dict.fromkeys(probes))),
            Key.obs.EXPERT: pd.Categorical(names * cells.n_obs, categories=names),
            "distance": torch.cat(distances).flatten().numpy(),
        }
        x, layer = torch.cat(made).flatten(0, 1).numpy(), self.registry["setup_args"]["layer"]
        return as_cells(x, obs, "reconstruction", self.adata, layer)

    def walk(
        self,
        cluster: str,
        dimension: int = 0,
        *,
        n: int = 11,
        span: tuple[float, float] = (-1.0, 1.0),
        start: np.ndarray | None = None,
    ) -> AnnData:
        """Decode codes along one latent dimension of a cluster's expert.

        Parameters
        ----------
        cluster
            Whose expert.
        dimension
            Which dimension of its codes.
        n
            How many steps.
        span
            First and last value. The prior is a standard normal distribution.
        start
            Values of the other dimensions, ``(d_k,)``; the mean of the cluster's codes by
            default.

        Returns
        -------
        ``(n, n_vars)`` on the scale of the training values, without noise, with
        ``.obs["cluster"]``, ``.obs["dimension"]`` and ``.obs["position"]``.

        Raises
        ------
        KeyError
            No such cluster.
        ValueError
            A dimension that the expert has not, fewer than 2 steps, a start of another length,
            ends that are no numbers.
        """
        k = expert_of(self.trained, cluster)
        size = self.module.experts.n_latents[k]
        if not is_whole(dimension) or not 0 <= dimension < size:
            raise ValueError(
                f"The expert of {cluster!r} has the dimensions 0 to {size - 1}, got {dimension!r}."
            )
        check_steps(n, "n")
        ends = np.asarray(span, dtype=np.float32)
        origin = self.module.means[k, :size].numpy(force=True) if start is None else start
        if ends.shape != (2,) or not np.isfinite(ends).all():
            raise ValueError(f"`span` must be two numbers, got {span}.")
        origin = np.asarray(origin, dtype=np.float32)
        if origin.shape != (size,) or not np.isfinite(origin).all():
            raise ValueError(f"`start` must be {size} numbers, got {start}.")
        position = np.linspace(*ends, int(n), dtype=np.float32)[None]
        x, _ = walk(self.module, k, origin, [dimension], position)
        layer = self.registry["setup_args"]["layer"]
        return steps_as_cells(x, cluster, [dimension], position, "walk", self.adata, layer)
