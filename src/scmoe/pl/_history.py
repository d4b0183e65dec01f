"""How the losses went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (3.2, 2.3)


def history(
    model: Any,
    *,
    keys: Sequence[str] | None = None,
    ncols: int = 3,
    logy: bool = False,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw what a model recorded while it was trained, one panel for each quantity.

    Training and validation of the same quantity share a panel.

    Parameters
    ----------
    model
        A trained model with an attribute ``history``, or such a history: a mapping of names
        to data frames with one column and the epoch as index, as scvi-tools writes it, or a
        data frame with a column for each name (``adata.uns["scmoe"]["history"]``).
    keys
        The quantities to draw, without ``_train`` and ``_validation``. By default all that
        were recorded once an epoch and are not zero throughout.
    ncols
        Panels in a row.
    logy
        Whether the y axes are logarithmic.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the list of axes.

    Raises
    ------
    ValueError
        If the model has not been trained, nothing was recorded, or cells are given.
    KeyError
        If one of ``keys`` was not recorded.

    Examples
    --------
    >>> scmoe.model.MoESimVAE.setup_anndata(adata, similarity=scmoe.similarity.Graph())
    >>> model = scmoe.model.MoESimVAE(adata)
    >>> model.train()
    >>> scmoe.pl.history(model)
    """
    if isinstance(model, AnnData):
        raise ValueError(
            "The history is that of a model: give the model, or what the clustering kept of it, "
            '`adata.uns["scmoe"]["history"]`.'
        )
    is_record = isinstance(model, Mapping | pd.DataFrame)
    record = model if is_record else getattr(model, "history", None)
    if record is None:
        raise ValueError("There is no history to draw: train the model first.")
    panels = _panels(record)
    if keys is not None:
        missing = [key for key in keys if key not in panels]
        if missing:
            raise KeyError(
                f"{', '.join(map(repr, missing))} was not recorded; there is: {', '.join(panels)}."
            )
        panels = {key: panels[key] for key in keys}
    else:
        panels = {
            name: lines
            for name, lines in panels.items()
            if any(np.any(line.to_numpy() != 0) for line in lines.values())
        }
    if not panels:
        raise ValueError("There is no history to draw: nothing was recorded once an epoch.")

    ncols = min(ncols, len(panels))
    nrows = -(-len(panels) // ncols)
    fig, grid = plt.subplots(
        nrows,
        ncols,
        figsize=(_PANEL[0] * ncols, _PANEL[1] * nrows),
        squeeze=False,
        layout="constrained",
    )
    axes = list(grid.flat)
    for empty in axes[len(panels) :]:
        empty.remove()
    axes = axes[: len(panels)]
    for ax, (name, lines) in zip(axes, panels.items(), strict=True):
        for part, line in lines.items():
            marker = "o" if len(line) == 1 else None
            style = "-" if part == "training" else "--"
            ax.plot(line.index, line, style, marker=marker, label=part, linewidth=1.3)
        ax.set_title(name.replace("_", " "), fontsize="medium")
        ax.set_xlabel("epoch")
        ax.grid(visible=False)
        ax.spines[["top", "right"]].set_visible(False)
        if logy:
            ax.set_yscale("log")
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize="small")
    return finish("history", fig, axes, show=show, save=save, return_fig=return_fig)


def _panels(record: Mapping[str, Any]) -> dict[str, dict[str, pd.Series]]:
    """Quantity -> part (training, validation) -> values by epoch."""
    panels: dict[str, dict[str, pd.Series]] = {}
    for key, table in record.items():
        if key.endswith("_step"):
            continue
        name, part = _split(key)
        values = table.iloc[:, 0] if isinstance(table, pd.DataFrame) else pd.Series(table)
        values = pd.to_numeric(values, errors="coerce").dropna()
        if len(values):
            panels.setdefault(name, {})[part] = values
    return panels


def _split(key: str) -> tuple[str, str]:
    if key == "train_loss_epoch":
        return "loss", "training"
    if key == "validation_loss":
        return "loss", "validation"
    for ending, part in (("_train", "training"), ("_validation", "validation")):
        if key.endswith(ending):
            return key.removesuffix(ending), part
    return key, "training"
