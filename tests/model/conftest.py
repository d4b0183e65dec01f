"""Settings of a tiny module."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def settings() -> dict[str, Any]:
    """All that a module wants but its sizes, for dense networks of 16 units."""
    return {
        "n_hidden": 16,
        "encoder_layers": 1,
        "gate_hidden": 16,
        "gate_layers": 1,
        "expert_hidden": 16,
        "expert_layers": 1,
        "image_shape": None,
        "encoder_channels": (4, 4, 4, 4, 2),
        "expert_channels": (2, 4, 4, 4),
        "activation": "elu",
        "batch_norm": False,
        "gate_dropout": 0.5,
        "code_noise": 0.3,
        "likelihood": "bernoulli",
        "means": "em",
        "kl": "released",
        "depict_target": "paper",
        "reconstruction_weight": 1.0,
        "similarity_weight": 0.7,
        "depict_weight": 0.2,
        "kl_weight": 0.05,
        "n_batch": 1,
        "encode_batch": False,
    }
