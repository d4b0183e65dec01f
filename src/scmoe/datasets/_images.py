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
    """Handwritten digits, 28 x 28 pixels.

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
        The position among all images: the first of ``"test"`` is ``"60000"``.

    Raises
    ------
    ValueError
        If there is no such split, or a file in ``SCMOE_DATA_DIR`` is not the published one.
    OSError
        If the files are not on this machine and cannot be downloaded.

    Notes
    -----
    LeCun et al., Proceedings of the IEEE 86, 2278 (1998). Looked for as ``mnist.npz`` in the
    folder that the environment variable ``SCMOE_DATA_DIR`` names (arrays ``x_train``,
    ``y_train``, ``x_test``, ``y_test``; repackaged from karpathy/convnetjs and kelas/mnist, MIT),
    else the original files are downloaded once to :attr:`scanpy.settings.datasetdir` from the
    mirror of torchvision and checked against their hashes.

    Examples
    --------
    >>> adata = scmoe.datasets.mnist("test")
    >>> adata.X[0].reshape(adata.uns["image_shape"])
    """
    return _idx_images("mnist", split, _DIGITS)


def fashion_mnist(split: Split = "all") -> AnnData:
    """Photographs of clothes, 28 x 28 pixels.

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
        The position among all images: the first of ``"test"`` is ``"60000"``.

    Raises
    ------
    ValueError
        If there is no such split, or a file in ``SCMOE_DATA_DIR`` is not the published one.
    OSError
        If the files are not on this machine and cannot be downloaded.

    Notes
    -----
    Xiao, Rasul & Vollgraf, arXiv:1708.07747 (2017), https://github.com/zalandoresearch/fashion-mnist
    (MIT). Looked for as ``fmnist.npz`` in the folder that the environment variable
    ``SCMOE_DATA_DIR`` names (arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``), else the
    original files are downloaded once to :attr:`scanpy.settings.datasetdir` and checked
    against their hashes.
    """
    return _idx_images("fmnist", split, _CLOTHES)


def coil20() -> AnnData:
    """Photographs of 20 objects on a turntable, 72 views each, 32 x 32 pixels.

    Returns
    -------
    1,440 images x 1,024 pixels, float32 from 0 to 1, as :func:`scmoe.io.from_array` makes it,
    with ``.obs["label"]`` (categorical, ``"0"`` to ``"19"``: the number of the object).

    Raises
    ------
    ValueError
        If the file in ``SCMOE_DATA_DIR`` is not the published one.
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; this form of it cannot be downloaded.

    Notes
    -----
    Columbia University Image Library, Nene, Nayar & Murase, technical report CUCS-005-96 (1996),
    https://www.cs.columbia.edu/CAVE/software/softlib/coil-20.php. The file (arrays ``x``,
    ``y``) is the version of 32 x 32 pixels of https://github.com/hyzhang98/AdaGAE, which states
    no licence.
    """
    with np.load(fetch("coil20.npz"), allow_pickle=False) as archive:
        return from_array(archive["x"], obs={Key.obs.LABEL: archive["y"]})


def _idx_images(folder: str, split: Split, classes: tuple[str, ...]) -> AnnData:
    """Make AnnData of a data set that was published as idx files."""
    if split not in ("all", *_IDX_STEM):
        raise ValueError(f"`split` is 'all', 'train' or 'test', not {split!r}.")
    splits = list(_IDX_STEM) if split == "all" else [split]
    parts = _read_parts(folder, splits)
    labels = np.concatenate([y for _, y in parts])
    sizes = [len(y) for _, y in parts]
    # the test images come after the 60,000 of the training
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
    """Return images and labels of each split, from one file on this machine or the originals."""
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
        gzip of: two bytes 0, the type (8 for bytes), the number of axes; the size of each axis
        (32 bits, most significant byte first); the values, last axis fastest.

    Returns
    -------
    uint8.

    Raises
    ------
    ValueError
        If it is no such file, or holds more or fewer values than it says.
    """
    with gzip.open(path) as file:
        raw = file.read()
    start = 4 + 4 * (raw[3] if len(raw) > 3 else 0)
    if raw[:3] != _IDX_UINT8 or len(raw) < start:
        raise ValueError(f"{path} is not an idx file of bytes.")
    shape = tuple(np.frombuffer(raw[4:start], dtype=">u4").tolist())
    values = np.frombuffer(raw, dtype=np.uint8, offset=start)
    if values.size != math.prod(shape):
        raise ValueError(f"{path} holds {values.size} values, but says that its shape is {shape}.")
    return values.reshape(shape)
