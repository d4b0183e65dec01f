"""A published plate of human blood: mass cytometry, raw values, gated."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.keys import Key
from scmoe.io import FCSRepairWarning, read_fcs

from ._registry import fetch, registry

if TYPE_CHECKING:
    from anndata import AnnData

_SURFACE = ("CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR", "CD7")
_ONE_POPULATION = {"cd14-surf-": "nk", "cd14+surf-": "nk"}
"""The population of gates that share more than half of the events of the smaller gate."""


def bodenmiller(well: str = "H05") -> AnnData:
    """Read one well of human blood under staurosporine, mass cytometry, gated.

    Parameters
    ----------
    well
        ``"H05"`` (14,067 cells) or ``"H08"`` (13,414 cells).

    Returns
    -------
    Cells x 35 channels, raw values, float32, as :func:`scmoe.io.read_fcs` makes it, and

    ``.obs["population"]``
        Categorical, 12 populations, named as in the files: ``cd4+``, ``nk``,
        ``cd14+hladrmid``, ... NaN for cells of two populations (18 in H05, 15 in H08).
    ``.obs["gates"]``
        Categorical, all gates of the cell, such as ``cd14-surf- & nk``.
    ``.obs["sample"]``
        Categorical, the well.
    ``.obs["file"]``
        Categorical, the stem of the first file with the cell, as in ``.uns["fcs"]``.
    ``.var["surface"]``
        Boolean: the 10 surface markers that MoE-Sim-VAE was published with.

    Raises
    ------
    ValueError
        If there is no such well, or a file on this machine is not the published one.
    OSError
        If a file is missing and cannot be downloaded.

    Notes
    -----
    Bodenmiller et al., Nature Biotechnology 30, 858 (2012). The files (CC0), one for each of 14
    gates, are those of https://github.com/yannabraham/bodenmiller. They are read from the folder
    that the environment variable ``SCMOE_DATA_DIR`` names (default: ``scmoe`` in
    :attr:`scanpy.settings.datasetdir`), downloaded once if they are missing, and checked by
    SHA-256. Every file gives the end of DATA one byte late; no warning is raised for it.

    The gates overlap, so the files list 15,792 events in H05 and 15,252 in H08, some events two
    or three times: with the same values in all 35 channels, time included. Here each event is one
    cell. Gates that share more than half of the events of the smaller gate are one population:
    ``cd14-surf-`` and ``cd14+surf-`` are ``nk``, which lists 1,647 of the 1,807 and 60 of the 81
    events in H05, 1,762 of 1,845 and 61 of 77 in H08. Scores of listed events cannot be compared
    with scores of these cells: with two labels for every second NK cell no clustering reaches a
    weighted F much above 0.92.

    Examples
    --------
    >>> adata = scmoe.datasets.bodenmiller("H05")
    >>> adata = adata[:, adata.var["surface"]].copy()
    """
    names = [name for name in registry().registry if name.startswith("bodenmiller/")]
    wells = natsorted({name.split("/")[1] for name in names})
    if well not in wells:
        raise ValueError(f"There is no well {well!r}; there are {', '.join(wells)}.")
    paths = [fetch(name) for name in natsorted(names) if name.split("/")[1] == well]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FCSRepairWarning)
        listed = read_fcs(paths, progress=False)
    file = listed.obs[Key.obs.SAMPLE].astype(str)
    # Staurosporine_<gate>_<well>
    gate = file.str.removeprefix("Staurosporine_").str.removesuffix(f"_{well}").to_numpy()
    first, event = _unique_rows(listed.X)
    gates = pd.Series(gate).groupby(event).agg(" & ".join)
    populations = pd.Series(gate).replace(_ONE_POPULATION).groupby(event).agg(["first", "nunique"])
    adata = listed[first].copy()
    adata.obs = pd.DataFrame(
        {
            Key.obs.SAMPLE: pd.Categorical([well] * adata.n_obs),
            Key.obs.POPULATION: _categorical(
                populations["first"].where(populations["nunique"] == 1)
            ),
            "gates": _categorical(gates),
            "file": pd.Categorical(file.to_numpy()[first]),
        },
        index=pd.Index([f"{well}-{i}" for i in range(adata.n_obs)]),
    )
    adata.var["surface"] = adata.var_names.isin(_SURFACE)
    return adata


def _unique_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the unique rows, in order, and the unique row of each row.

    Rows are compared byte by byte, so that NaN equals NaN.
    """
    values = np.ascontiguousarray(values)
    rows = values.view(np.dtype((np.void, values.dtype.itemsize * values.shape[1]))).ravel()
    codes, _ = pd.factorize(rows)
    return np.flatnonzero(~pd.Series(codes).duplicated()), codes


def _categorical(labels: pd.Series) -> pd.Categorical:
    """Return the labels with categories in natural order."""
    return pd.Categorical(labels, categories=natsorted(labels.dropna().unique()))
