"""Published cytometry with labels, as raw values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from natsort import natsorted

from scmoe._core.keys import Key
from scmoe.io import FCSRepairWarning, read_fcs
from scmoe.io._channels import channel_kind

from ._registry import fetch, registry

_SURFACE = ("CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR", "CD7")
_NO_POPULATION = ("ungated", "unassigned")

_ONE_POPULATION = {"cd14-surf-": "nk", "cd14+surf-": "nk"}
"""Gates that hold more than half of the smaller one in common, and what they are called."""


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
        Categorical, 12 populations, called after the files: ``cd4+``, ``nk``,
        ``cd14+hladrmid``, ... NaN for the cells of two populations (18 in H05, 15 in H08).
    ``.obs["gates"]``
        Categorical, all gates that hold the cell, such as ``cd14-surf- & nk``.
    ``.obs["sample"]``
        Categorical, the well.
    ``.obs["file"]``
        Categorical, the stem of the first file that holds the cell, as in ``.uns["fcs"]``.
    ``.var["surface"]``
        Boolean: the 10 surface markers that MoE-Sim-VAE was published with.

    Raises
    ------
    ValueError
        If there is no such well, or a file in ``SCMOE_DATA_DIR`` is not the published one.
    OSError
        If the files are not on this machine and cannot be downloaded.

    Notes
    -----
    Bodenmiller et al., Nature Biotechnology 30, 858 (2012). The files (CC0), one for each of 14
    gates, are those of https://github.com/yannabraham/bodenmiller, looked for in the folder that
    the environment variable ``SCMOE_DATA_DIR`` names, else downloaded once to
    :attr:`scanpy.settings.datasetdir` and checked against their hashes. All say that DATA ends
    a byte late, which is known and not warned of.

    The gates overlap, so the files list 15,792 events in H05 and 15,252 in H08, some of them two
    or three times: the same values in all 35 channels, time included. Each event is one cell
    here. Gates that hold more than half of the smaller one in common are one population:
    ``cd14-surf-`` and ``cd14+surf-`` are ``nk``, which lists 1,647 of the 1,807 and 60 of the 81
    events in H05, 1,762 of 1,845 and 61 of 77 in H08. Scores of listed events do not compare with
    scores of these cells: with two labels for every second NK cell no clustering reaches a
    weighted F of much more than 0.92.

    Examples
    --------
    >>> adata = scmoe.datasets.bodenmiller("H05")
    >>> adata = adata[:, adata.var["surface"]].copy()
    """
    names = [name for name in registry() if name.startswith("bodenmiller/")]
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
    called = pd.Series(gate).replace(_ONE_POPULATION).groupby(event).agg(["first", "nunique"])
    adata = listed[first].copy()
    adata.obs = pd.DataFrame(
        {
            Key.obs.SAMPLE: pd.Categorical([well] * adata.n_obs),
            Key.obs.POPULATION: _categorical(
                called["first"].where(called["nunique"] == 1).to_numpy()
            ),
            "gates": _categorical(gates.to_numpy()),
            "file": pd.Categorical(file.to_numpy()[first]),
        },
        index=pd.Index([f"{well}-{i}" for i in range(adata.n_obs)]),
    )
    adata.var["surface"] = adata.var_names.isin(_SURFACE)
    return adata


def _unique_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the first of all equal rows, in order, and of each row its number.

    Rows are compared byte by byte, so that NaN equals NaN.
    """
    values = np.ascontiguousarray(values)
    rows = values.view(np.dtype((np.void, values.dtype.itemsize * values.shape[1]))).ravel()
    codes, _ = pd.factorize(rows)
    return np.flatnonzero(~pd.Series(codes).duplicated()), codes


def multicenter(sample: int = 1) -> AnnData:
    """One sample of a multi-centre study, mass cytometry of human blood, gated in part.

    Parameters
    ----------
    sample
        1 to 8.

    Returns
    -------
    Cells x 8 markers, raw values, float32, with ``.obs["population"]`` (categorical, 4
    populations, NaN for cells that were not gated), ``.obs["sample"]``, ``.var["channel"]``,
    ``.var["marker"]`` and ``.var["kind"]``.

    Raises
    ------
    ValueError
        If there is no such sample.
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; it is a repackaging that cannot be downloaded.

    Notes
    -----
    From the examples of CyAnno, https://github.com/abbioinfo/CyAnno (GPL-3). The order of the
    columns was inferred.
    """
    names = natsorted(name for name in registry() if name.startswith("multicenter/"))
    if isinstance(sample, bool) or sample not in range(1, len(names) + 1):
        raise ValueError(f"There is no sample {sample!r}; there are 1 to {len(names)}.")
    name = f"sample{sample:02d}"
    with np.load(fetch(f"multicenter/{name}.npz"), allow_pickle=False) as archive:
        values, markers = archive["X"], archive["markers"]
        populations = archive["populations"][archive["y"]]
    return _labelled(values, markers, populations, np.full(len(values), name))


def samusik_ramp() -> AnnData:
    """Gated cells of mouse bone marrow, mass cytometry, 23 populations.

    Returns
    -------
    10,000 cells x 38 markers, raw values, float32, with ``.obs["population"]`` (categorical),
    ``.obs["sample"]``, ``.var["channel"]``, ``.var["marker"]`` and ``.var["kind"]``.

    Raises
    ------
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; this form of it cannot be downloaded.

    Notes
    -----
    From https://github.com/ramp-kits/mouse_cytometry, probably drawn from Samusik_all (Samusik
    et al., Nature Methods 13, 493, 2016).
    """
    table = pd.read_csv(fetch("samusik_ramp.csv.gz"))
    populations = table.pop("label").to_numpy()
    sample = np.full(len(table), "samusik_ramp")
    return _labelled(table.to_numpy(), table.columns, populations, sample)


def levine32_balanced() -> AnnData:
    """Human bone marrow, mass cytometry: 50 cells of each of 14 populations and donor.

    Balanced, so that scores on it do not compare with published ones of Levine_32dim.

    Returns
    -------
    1,500 cells x 37 channels (32 markers), raw values, float32, with ``.obs["population"]``
    (categorical, NaN for unassigned cells), ``.obs["sample"]`` (the donor), ``.var["channel"]``,
    ``.var["marker"]`` and ``.var["kind"]``.

    Raises
    ------
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; this form of it cannot be downloaded.

    Notes
    -----
    Levine et al., Cell 162, 184 (2015), from https://github.com/phipsonlab/SuperCellCyto
    (GPL-3).
    """
    table = pd.read_csv(fetch("levine32_balanced_subset.csv.gz"))
    populations, samples = table.pop("population").to_numpy(), table.pop("sample").to_numpy()
    table = table.drop(columns=["file_number", "event_number"])
    return _labelled(table.to_numpy(), table.columns, populations, samples)


def _labelled(
    values: np.ndarray, markers: Sequence[str], populations: np.ndarray, samples: np.ndarray
) -> AnnData:
    """Make AnnData of the arrays of a mass cytometry table."""
    names = [str(marker) for marker in markers]
    kinds = [channel_kind(name, name, mass=True) for name in names]
    obs = pd.DataFrame(
        {
            Key.obs.SAMPLE: _categorical(samples),
            Key.obs.POPULATION: _categorical(populations),
        },
        index=[f"{sample}-{i}" for i, sample in enumerate(samples)],
    )
    var = pd.DataFrame(
        {
            Key.var.CHANNEL: names,
            Key.var.MARKER: names,
            Key.var.KIND: pd.Categorical(kinds),
        },
        index=names,
    )
    return AnnData(X=np.asarray(values, dtype=np.float32), obs=obs, var=var)


def _categorical(labels: np.ndarray) -> pd.Categorical:
    """Make string categories in natural order; what says that it is none is missing."""
    series = pd.Series(labels, dtype=object)
    series = series.where(~series.isin(_NO_POPULATION))
    return pd.Categorical(series, categories=natsorted(series.dropna().unique()))
