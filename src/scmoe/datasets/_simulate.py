"""A simulated plate of blood, written as the FCS files of a mass cytometer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from natsort import natsorted

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.keys import Key
from scmoe._core.values import fcs_keywords
from scmoe.io import write_fcs

_MARKERS = {
    "CD3": "Er170Di",
    "CD45": "Y89Di",
    "CD4": "Nd145Di",
    "CD20": "Sm147Di",
    "CD33": "Nd148Di",
    "CD123": "Eu151Di",
    "CD14": "Gd160Di",
    "IgM": "Yb171Di",
    "HLA-DR": "Yb174Di",
    "CD7": "Yb176Di",
}

# share of blood in percent, and the median of each marker as arcsinh(x / 5), in the order above
_POPULATIONS: dict[str, tuple[float, tuple[float, ...]]] = {
    "CD4 T cells": (33.0, (4.3, 5.3, 4.0, 0.1, 0.1, 0.2, 0.0, 0.0, 0.4, 3.0)),
    "CD8 T cells": (19.0, (4.2, 5.5, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0, 0.6, 3.2)),
    "NK cells": (13.0, (0.4, 5.3, 0.1, 0.1, 0.4, 0.4, 0.1, 0.0, 0.6, 3.8)),
    "CD14+ HLA-DR mid monocytes": (12.0, (0.2, 4.6, 2.0, 0.2, 3.5, 1.4, 3.8, 0.2, 3.2, 0.3)),
    "IgM+ B cells": (8.0, (0.1, 5.1, 0.1, 4.0, 0.1, 0.4, 0.0, 3.4, 4.1, 0.2)),
    "CD14+ HLA-DR high monocytes": (3.5, (0.3, 4.8, 2.2, 0.3, 3.7, 1.8, 3.9, 0.3, 5.0, 0.4)),
    "IgM- B cells": (3.0, (0.1, 5.2, 0.1, 3.9, 0.1, 0.3, 0.0, 0.5, 4.3, 0.2)),
    "CD14- HLA-DR mid monocytes": (2.6, (0.3, 5.0, 1.3, 0.3, 2.8, 1.2, 0.7, 0.2, 3.3, 0.4)),
    "CD14+ HLA-DR low monocytes": (1.9, (0.2, 4.3, 1.5, 0.1, 3.2, 0.9, 3.5, 0.1, 1.0, 0.2)),
    "Surface-low cells": (1.1, (0.3, 2.6, 0.2, 0.2, 0.5, 0.3, 0.2, 0.1, 0.4, 0.3)),
    "Dendritic cells": (0.8, (0.2, 4.7, 1.6, 0.3, 3.3, 2.3, 0.5, 0.3, 5.4, 0.4)),
    "Basophils": (0.6, (0.1, 4.0, 0.3, 0.1, 2.4, 5.0, 0.1, 0.0, 0.3, 0.3)),
    "Plasmacytoid dendritic cells": (0.4, (0.1, 4.6, 1.9, 0.2, 0.5, 5.3, 0.1, 0.1, 4.4, 1.6)),
    "Plasmablasts": (0.1, (0.1, 3.5, 0.2, 0.6, 0.3, 0.4, 0.1, 0.5, 2.8, 0.5)),
}

_LABEL = "label"
_TABLE = "POPULATIONS"
_ROWS, _COLUMNS = "ABCDEFGH", 12


def simulate_plate(
    directory: str | os.PathLike[str],
    *,
    n_wells: int = 4,
    n_cells: int = 12_000,
    random_state: int | np.random.Generator = 0,
) -> list[Path]:
    """Simulate blood in the wells of a plate and write one FCS file for each.

    Fourteen populations with 0.1 % to 33 % of the cells differ in the ten surface markers that
    MoE-Sim-VAE was published with. The values resemble those of a mass cytometer: the markers of a
    cell scale with its size, positive populations are skewed, negative ones pile up at zero, some
    cells lose a marker, neighbouring populations (the monocytes in HLA-DR, the B cells in IgM)
    overlap, and wells differ slightly in staining and in composition.

    Parameters
    ----------
    directory
        Folder of the files; created if it does not exist. Files of the same names are replaced.
    n_wells
        1 to 96.
    n_cells
        Cells in each well.
    random_state
        Seed; the same seed gives the same bytes.

    Returns
    -------
    The paths, ``A01.fcs``, ``A02.fcs``, ... Each file has the ten markers, the channels ``Time``
    (ms), ``Event_length``, ``DNA1``, ``DNA2``, ``Bead``, and ``label``, the number of the
    population as in the benchmark files of Weber & Robinson; the keyword ``POPULATIONS`` names
    them (``1=CD4 T cells;2=...``), see :func:`population_labels`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> scmoe.datasets.simulate_plate("plate/")
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> scmoe.datasets.population_labels(adata)
    """
    most = len(_ROWS) * _COLUMNS
    if not 1 <= n_wells <= most:
        raise ValueError(f"`n_wells` is 1 to {most}, not {n_wells!r}.")
    if n_cells < 1:
        raise ValueError(f"`n_cells` is at least 1, not {n_cells!r}.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, rng in enumerate(np.random.default_rng(random_state).spawn(n_wells)):
        well = f"{_ROWS[i // _COLUMNS]}{i % _COLUMNS + 1:02d}"
        path = directory / f"{well}.fcs"
        _write(path, _simulate_well(n_cells, rng), well)
        paths.append(path)
    return paths


def _simulate_well(n_cells: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return the raw intensities and the technical channels of a well, one row for each cell."""
    shares = np.array([share for share, _ in _POPULATIONS.values()]) / 100
    medians = np.array([median for _, median in _POPULATIONS.values()])
    composition = shares * np.exp(rng.normal(0, 0.12, len(shares)))
    codes = rng.choice(len(shares), size=n_cells, p=composition / composition.sum())
    staining = rng.normal(0, 0.06, medians.shape[1])

    medians = medians[codes]
    positive = np.clip(medians / 2, 0, 1)
    size = rng.normal(0, 0.28, (n_cells, 1))
    spread = 0.38 + 0.14 * positive
    noise = rng.normal(0, 1, medians.shape) - 0.25 * rng.exponential(1, medians.shape) * positive
    transformed = medians + positive * (size + staining) + spread * noise
    # any cell may lose a marker, except CD45
    lost = rng.random(medians.shape) < 0.015
    lost[:, list(_MARKERS).index("CD45")] = False
    transformed = np.where(lost, rng.normal(0.1, 0.4, medians.shape), transformed)
    counts = 5 * np.sinh(np.clip(transformed, 0, 8))
    # the detector counts ions; the software of the instrument randomises the counts
    counts = np.clip(rng.poisson(counts) - rng.uniform(0, 1, counts.shape), 0, None)

    cells = pd.DataFrame(counts, columns=list(_MARKERS))
    dna = np.exp(rng.normal(6.2, 0.18, n_cells) + 0.5 * size[:, 0])
    technical = {
        "Time": np.sort(rng.uniform(0, 600_000, n_cells)),
        "Event_length": np.round(np.clip(rng.normal(28, 6, n_cells) + 8 * size[:, 0], 10, 75)),
        "DNA1": dna,
        "DNA2": dna * np.exp(rng.normal(0.6, 0.06, n_cells)),
        "Bead": rng.exponential(0.4, n_cells),
        _LABEL: codes + 1.0,
    }
    return cells.assign(**technical)


def _write(path: Path, cells: pd.DataFrame, well: str) -> None:
    """Write the FCS file of a well, whole or not at all."""
    metals = {**_MARKERS, "DNA1": "Ir191Di", "DNA2": "Ir193Di", "Bead": "Ce140Di"}
    names = [metals.get(name, name) for name in cells]
    populations = ";".join(f"{code}={name}" for code, name in enumerate(_POPULATIONS, start=1))
    keywords = {
        "cyt": "simulated CyTOF",
        "src": "scmoe",
        "wellid": well,
        _TABLE.lower(): populations,
    }
    adata = AnnData(
        cells.to_numpy(dtype=np.float32),
        obs={Key.obs.SAMPLE: pd.Categorical([well] * len(cells))},
        var=pd.DataFrame({Key.var.CHANNEL: names, Key.var.MARKER: list(cells)}, index=list(cells)),
        uns={Key.uns.FCS: {well: {"keywords": pd.DataFrame({"value": keywords})}}},
    )
    write_fcs(adata, path, obs=(), overwrite=True)


def population_labels(
    adata: AnnData, *, channel: str = _LABEL, key_added: str = Key.obs.POPULATION
) -> None:
    """Write the populations of cells to ``.obs``, from a channel with their numbers.

    For the files of :func:`simulate_plate`, and for benchmark files with a channel ``label``.

    Parameters
    ----------
    adata
        From :func:`scmoe.io.read_fcs`.
    channel
        The variable with the numbers.
    key_added
        Column of ``.obs`` to write.

    Returns
    -------
    None. Writes ``.obs[key_added]``: categorical, strings in natural order. The keyword
    ``POPULATIONS`` of a file (``1=name;2=name``) names the numbers; without it the numbers
    are the names. 0 and NaN are no population.

    Raises
    ------
    KeyError
        If there is no such channel.
    ValueError
        If a value is not a whole number, or the keyword does not name a number.
    """
    check_adata(adata)
    if channel not in adata.var_names:
        raise KeyError(f"no channel {channel!r} in .var_names")
    column = adata.var_names.get_indexer([channel])
    values = np.asarray(layer_values(adata, None)[:, column], dtype=np.float64).ravel()
    known = ~np.isnan(values) & (values != 0)
    codes = values[known]
    if not (np.isfinite(codes) & (codes == np.round(codes))).all():
        raise ValueError(
            f"channel {channel!r} has values that are not whole numbers; were they transformed?"
        )
    labels = pd.Series(pd.NA, index=adata.obs_names, dtype=object).to_numpy()
    labels[known] = [str(int(code)) for code in codes]
    records = adata.uns.get(Key.uns.FCS, {})
    samples = adata.obs.get(Key.obs.SAMPLE, pd.Series("", index=adata.obs_names)).to_numpy()
    for sample, record in records.items():
        table = fcs_keywords(record).get(_TABLE.lower(), "")
        if not table:
            continue
        names = dict(entry.split("=", 1) for entry in table.split(";"))
        rows = known & (samples == sample)
        unknown = set(labels[rows]) - set(names)
        if unknown:
            raise ValueError(
                f"{sample}: the keyword {_TABLE} does not name {', '.join(sorted(unknown))}"
            )
        labels[rows] = [names[code] for code in labels[rows]]
    adata.obs[key_added] = pd.Categorical(labels, categories=natsorted(set(labels[known])))
