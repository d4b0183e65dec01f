"""Published images with labels, pixels from 0 to 1."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scmoe._core.keys import Key
from scmoe.io import from_array

from ._registry import fetch, find

if TYPE_CHECKING:
    from anndata import AnnData

Split = Literal["all", "train", "test"]

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_IDX_UINT8 = b"\0\0\x08"
_IDX_STEM = {"train": "train", "test": "t10k"}


def mnist(split: Split = "all") -> AnnData:
    """Read MNIST: images of handwritten digits, 28 x 28 pixels.

    Parameters
    ----------
    split
        ``"train"`` (60,000 images), ``"test"`` (10,000), or ``"all"``, in this order.

    Returns
    -------
    Images x 784 pixels, float32 from 0 to 1, as :func:`scmoe.io.from_array` makes it, and

    ``.obs["label"]``
        Categorical, ``"0"`` to ``"9"``.
    ``.obs["split"]``
        Categorical, ``"train"`` or ``"test"``.
    ``.obs_names``
        The position among all images: the first image of ``"test"`` is ``"60000"``.

    Raises
    ------
    ValueError
        If there is no such split, or a file on this machine is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Notes
    -----
    LeCun et al., Proceedings of the IEEE 86, 2278 (1998). The images are read from the folder
    that the environment variable ``SCMOE_DATA_DIR`` names (default: ``scmoe`` in
    :attr:`scanpy.settings.datasetdir`): from ``mnist.npz`` (arrays ``x_train``, ``y_train``,
    ``x_test``, ``y_test``; repackaged from karpathy/convnetjs and kelas/mnist, MIT), or from the
    original files, which are downloaded once from the mirror of torchvision. All files are checked
    by their hashes.

    Examples
    --------
    >>> adata = scmoe.datasets.mnist("test")
    >>> adata.X[0].reshape(adata.uns["image_shape"])
    """
    return _idx_images("mnist", split, _DIGITS)


def fashion_mnist(split: Split = "all") -> AnnData:
    """Read Fashion-MNIST: photographs of clothes, 28 x 28 pixels.

    Parameters
    ----------
    split
        ``"train"`` (60,000 images), ``"test"`` (10,000), or ``"all"``, in this order.

    Returns
    -------
    Images x 784 pixels, float32 from 0 to 1, as :func:`scmoe.io.from_array` makes it, and

    ``.obs["label"]``
        Categorical, ``"T-shirt/top"`` to ``"Ankle boot"``, in the published order: the codes of
        the categories are the published numbers.
    ``.obs["split"]``
        Categorical, ``"train"`` or ``"test"``.
    ``.obs_names``
        The position among all images: the first image of ``"test"`` is ``"60000"``.

    Raises
    ------
    ValueError
        If there is no such split, or a file on this machine is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Notes
    -----
    Xiao, Rasul & Vollgraf, arXiv:1708.07747 (2017), https://github.com/zalandoresearch/fashion-mnist
    (MIT). The images are read from the folder that the environment variable ``SCMOE_DATA_DIR``
    names (default: ``scmoe`` in :attr:`scanpy.settings.datasetdir`): from ``fmnist.npz`` (arrays
    ``x_train``, ``y_train``, ``x_test``, ``y_test``), or from the original files, which are
    downloaded once. All files are checked by their hashes.
    """
    return _idx_images("fmnist", split, _CLOTHES)


def _idx_images(folder: str, split: Split, classes: tuple[str, ...]) -> AnnData:
    """Return the images of some splits with their labels, as AnnData."""
    if split not in ("all", *_IDX_STEM):
        raise ValueError(f"`split` is 'all', 'train' or 'test', not {split!r}.")
    splits = list(_IDX_STEM) if split == "all" else [split]
    parts = _read_parts(folder, splits)
    labels = np.concatenate([y for _, y in parts])
    sizes = [len(y) for _, y in parts]
    # the test images follow the 60,000 training images
    first = 60_000 if split == "test" else 0
    return from_array(
        np.concatenate([x for x, _ in parts]),
        obs={
            Key.obs.LABEL: pd.Categorical.from_codes(labels, categories=list(classes)),
            Key.obs.SPLIT: np.repeat(splits, sizes),
        },
        obs_names=[str(first + i) for i in range(len(labels))],
    )


def _read_parts(folder: str, splits: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and labels of each split, from the npz file or the original idx files."""
    packed = find(f"{folder}.npz")
    if packed is not None:
        with np.load(packed, allow_pickle=False) as archive:
            return [(archive[f"x_{part}"], archive[f"y_{part}"]) for part in splits]
    parts = []
    for part in splits:
        stem = f"{folder}/{_IDX_STEM[part]}"
        images = read_idx(fetch(f"{stem}-images-idx3-ubyte.gz"))
        parts.append((images, read_idx(fetch(f"{stem}-labels-idx1-ubyte.gz"))))
    return parts


def read_idx(path: Path) -> np.ndarray:
    """Read a compressed idx file of bytes.

    Parameters
    ----------
    path
        A gzip file of two bytes 0, the data type (8 for bytes) and the number of axes; the size of
        each axis (32 bits, most significant byte first); the values, last axis fastest.

    Returns
    -------
    uint8, of the shape that the file states.

    Raises
    ------
    ValueError
        If the file is not of this format, or has more or fewer values than it states.
    """
    with gzip.open(path) as file:
        raw = file.read()
    start = 4 + 4 * (raw[3] if len(raw) > 3 else 0)
    if raw[:3] != _IDX_UINT8 or len(raw) < start:
        raise ValueError(f"{path} is not an idx file of bytes.")
    shape = tuple(np.frombuffer(raw[4:start], dtype=">u4").tolist())
    values = np.frombuffer(raw, dtype=np.uint8, offset=start)
    if values.size != math.prod(shape):
        raise ValueError(f"{path} has {values.size} values, but states the shape {shape}.")
    return values.reshape(shape)
