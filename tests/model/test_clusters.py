"""What becomes of the clusters when a training is done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scmoe.model._clusters import Description, finish_clusters
from scmoe.model._moesimvae_module import MoESimVAEModule, MoESimVAESettings


def make(settings, n_experts, **more):
    torch.manual_seed(0)
    sizes = {"n_input": 6, "n_experts": n_experts, "n_latent": 3}
    return MoESimVAEModule(MoESimVAESettings(**{**settings, **sizes, **more})).eval()


def outputs(expert, z, batch, n_experts):
    n = len(expert)
    return {
        "z": z,
        "expert": expert,
        "proba": torch.nn.functional.one_hot(expert, n_experts).float(),
        "scaled": torch.rand(n, 6),
        "position": torch.rand(n, 6),
        "batch": batch,
    }


@pytest.mark.parametrize(("min_cells", "n_alive"), [(None, 4), (10, 1), (0, 6)])
def test_experts_with_few_cells_are_retired(settings, min_cells, n_alive):
    """40 cells of 6 experts: one of fewer than 10 is kept if it has its share of the cells."""
    expert = torch.repeat_interleave(torch.arange(6), torch.tensor([16, 7, 6, 6, 5, 0]))
    batch = outputs(expert, torch.randn(40, 3), torch.zeros(40, 1), 6)
    module = make(settings, 6)
    finish_clusters(module, [], lambda: [batch], 40, min_cells)
    assert int(module.live.sum()) == n_alive


def test_covariances_are_those_within_batches(settings):
    """Codes of the second batch lie elsewhere, which is no spread of the cluster."""
    module = make(settings, 2, n_batch=2)
    late = torch.arange(2000) % 2
    z = torch.randn(2000, 3) + 10 * late[:, None]
    description = Description(module)
    with torch.inference_mode():
        expert = torch.zeros(2000, dtype=torch.int64)
        description.add(outputs(expert, z, late[:, None].float(), 2))
        description.write()
    np.testing.assert_allclose(module.covariances[0], np.eye(3), atol=0.15)
    torch.testing.assert_close(
        module.offsets[0], torch.tensor([[-5.0] * 3, [5.0] * 3]), atol=0.1, rtol=0
    )
