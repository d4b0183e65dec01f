"""An independent judge of generated images: a classifier trained on real images with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.autoencoder import PREDICT_BATCH, batches, silent
from scmoe._core.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHIFT = 2
"""Pixels by which training images are moved at random, each way."""


class Classifier(nn.Module):
    """A small convolutional network for square grey images.

    Parameters
    ----------
    side
        Pixels of a side, a multiple of 8 up to rounding down.
    n_classes
        Classes.
    channels
        Of the three convolutions.

    Attributes
    ----------
    test_accuracy
        Share of the test images that it got right, None before :meth:`fit`.
    """

    def __init__(
        self, side: int = 28, n_classes: int = 10, channels: Sequence[int] = (16, 32, 64)
    ):
        super().__init__()
        self.side = side
        self.n_classes = n_classes
        self.test_accuracy: float | None = None
        layers: list[nn.Module] = []
        for n_in, n_out in zip([1, *channels], channels, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        size = channels[-1] * (side // 2 ** len(channels)) ** 2
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(size, n_classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(n, n_classes)`` of images ``(n, side, side)``."""
        return self.net(x[:, None])

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        x_test: np.ndarray,
        y_test: np.ndarray,
        seed: int,
        epochs: int = 4,
        *,
        batch_size: int = 128,
        lr: float = 5e-3,
        say: Callable[[str], None] = silent,
    ) -> Classifier:
        """Train on images with labels, and record the accuracy on other images.

        Parameters
        ----------
        x, x_test
            ``(n, side * side)`` or ``(n, side, side)``, float32 between 0 and 1.
        y, y_test
            Classes, integers from 0.

        Returns
        -------
        The classifier itself.
        """
        images, labels = self._images(x), torch.as_tensor(np.asarray(y, dtype=np.int64))
        images, labels = images.to(self.device), labels.to(self.device)
        n_steps = epochs * -(-len(images) // batch_size)
        with seeded(seed):
            for layer in self.net:
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
            optimizer = torch.optim.Adam(self.parameters(), lr=lr)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=n_steps)
            for epoch in range(epochs):
                self.train()
                for index in batches(len(images), batch_size, self.device):
                    loss = F.cross_entropy(self(moved(images[index])), labels[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                say(f"classifier, epoch {epoch + 1}: {loss.item():.4f}")
        self.test_accuracy = float(np.mean(self.predict(x_test) == np.asarray(y_test)))
        return self

    @torch.inference_mode()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the class of each image, ``(n,)`` int64; images as in :meth:`fit`."""
        self.eval()
        parts = self._images(x).split(PREDICT_BATCH)
        return torch.cat([self(part.to(self.device)).argmax(1).cpu() for part in parts]).numpy()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def _images(self, x: np.ndarray) -> torch.Tensor:
        x = np.asarray(x, dtype=np.float32).reshape(len(x), self.side, self.side)
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError("The classifier's images are values between 0 and 1.")
        return torch.from_numpy(x)


def moved(x: torch.Tensor) -> torch.Tensor:
    """Return the images of a batch shifted by the same few random pixels, padded with zeros."""
    down, right = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    side = x.shape[1]
    return F.pad(x, [SHIFT] * 4)[:, down : down + side, right : right + side]
