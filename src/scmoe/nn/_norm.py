"""Batch normalisation that survives a batch of one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _Lone:
    """In training, a batch without spread is normalised as outside of training.

    One cell has no variance, and torch refuses it. Its batch takes the running statistics
    and leaves them as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each feature or channel of ``(n, ...)``."""
        if self.training and len(x) < 2:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class BatchNorm1d(_Lone, nn.BatchNorm1d):
    """Normalises the features of cells, ``(n, d)``."""


class BatchNorm2d(_Lone, nn.BatchNorm2d):
    """Normalises the channels of images, ``(n, channels, height, width)``."""
