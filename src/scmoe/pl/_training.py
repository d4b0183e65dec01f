"""Plots of a training: its history, and the pruning of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.ticker import MaxNLocator

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key

from ._figure import fill_docs, finish, make_panels, open_frame

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (3.2, 2.3)
_MEAN, _LOWEST, _CHOSEN = "tab:blue", "tab:orange", "0.45"


@fill_docs
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
    """Draw the training history of a model, one panel for each quantity.

    Training and validation values of a quantity share a panel.

    Parameters
    ----------
    model
        A trained model with an attribute ``history``, or a history: a mapping of names to data
        frames with one column and the epoch as index, as scvi-tools writes it, or a data frame
        with a column for each name (``adata.uns["scmoe"]["history"]``).
    keys
        The quantities to draw, without ``_train`` and ``_validation``. By default all that were
        recorded once per epoch and are not always zero.
    ncols
        Number of panels in a row.
    logy
        Whether the y axes are logarithmic.
    {show_save}

    Returns
    -------
    {returns} the list of axes.

    Raises
    ------
    ValueError
        If the model has not been trained, nothing was recorded, or ``model`` is an AnnData.
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
            "An AnnData has no history: give the model, or the history that the clustering wrote, "
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
        raise ValueError("There is no history to draw: nothing was recorded once per epoch.")

    ncols = min(ncols, len(panels))
    size = (_PANEL[0] * ncols, _PANEL[1] * -(-len(panels) // ncols))
    fig, axes = make_panels(len(panels), ncols, size)
    for ax, (name, lines) in zip(axes, panels.items(), strict=True):
        for part, line in lines.items():
            marker = "o" if len(line) == 1 else None
            style = "-" if part == "training" else "--"
            ax.plot(line.index, line, style, marker=marker, label=part, linewidth=1.3)
        ax.set_title(name.replace("_", " "), fontsize="medium")
        ax.set_xlabel("epoch")
        open_frame(ax)
        if logy:
            ax.set_yscale("log")
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize="small")
    return finish("history", fig, axes, title=None, show=show, save=save, return_fig=return_fig)


def _panels(record: Mapping[str, Any]) -> dict[str, dict[str, pd.Series]]:
    """Sort a history by quantity and part (training, validation)."""
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


@fill_docs
def pruning(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw the consensus of the arms of ``"cpl-mixvae"`` while categories were pruned.

    The panels show the mean and the lowest consensus of the categories after each round, with
    the threshold of the lowest consensus, and the loss, against the number of remaining
    categories; training proceeds from right to left. The dashed line marks the chosen number.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with ``n_clusters="auto"``.
    {key}
    title
        Title of the figure; by default the chosen number of categories.
    {show_save}

    Returns
    -------
    {returns} the two axes.

    Raises
    ------
    KeyError
        If there is no such clustering, or it is by another model or with a given number of
        clusters.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.pl.pruning(adata)
    """
    estimates = clustering_record(adata, key).get("estimates", {})
    curve = estimates.get("n_categories") if isinstance(estimates, Mapping) else None
    if curve is None:
        raise KeyError(
            f"Did not find the record of the pruning in `.uns[{key!r}]`: run "
            '`scmoe.tl.cluster(adata, model="cpl-mixvae")` without `n_clusters`, or name its '
            "`key_added` as `key`."
        )
    n, chosen = np.asarray(curve["n_categories"]), int(curve["chosen"])
    fig, axes = make_panels(2, 2, (8, 3.2))
    curves = (
        (axes[0], "consensus", _MEAN, "mean"),
        (axes[0], "lowest", _LOWEST, "lowest"),
        (axes[1], "loss", _MEAN, None),
    )
    for ax, name, color, label in curves:
        ax.plot(n, np.asarray(curve[name]), color=color, marker="o", markersize=4, label=label)
    for ax, label in zip(axes, ("consensus", "loss"), strict=True):
        ax.axvline(chosen, color=_CHOSEN, linestyle="--", linewidth=1, zorder=0)
        ax.set_xlabel("categories")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        open_frame(ax)
    axes[0].axhline(float(curve["threshold"]), color=_CHOSEN, linewidth=1, zorder=0)
    axes[0].set_ylim(0, 1.03)
    axes[0].legend(frameon=False, loc="lower left")
    title = f"{chosen} of {n.max()} categories" if title is None else title
    return finish("pruning", fig, axes, title=title, show=show, save=save, return_fig=return_fig)
