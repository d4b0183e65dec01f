"""Seeds that do not leak."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from scmoe._core.random import seeded


def test_an_interruption_while_the_seed_is_set_changes_nothing(monkeypatch):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002

    def interrupted(seed):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "manual_seed", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(7):
        pass
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
