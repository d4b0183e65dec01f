"""Parts that all plots share: docstrings, panels, names and colours, show, save and return."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

from scmoe._core.text import visible, with_docs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("scmoe")

_SHOW_SAVE = """\
show
    Whether to show the figure; None follows ``scanpy.settings.autoshow``.
save
    True, or the end of a file name (``"_well.pdf"``), writes the figure to
    ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is used as it is."""
_RETURN_FIG = """\
return_fig
    Return the figure, and show it only with ``show=True``."""
_DOCS = {
    "key": """\
key
    The ``key_added`` of the clustering.""",
    "groupby_key": """\
key
    Column of ``.obs`` with the clusters, the ``key_added`` of :func:`scmoe.tl.cluster`, or any
    other categorical column.""",
    "title": """\
title
    Title of the figure.""",
    "show_save": f"{_SHOW_SAVE}\n{_RETURN_FIG}",
    "show_save_ax": f"{_SHOW_SAVE}\nax\n    Axes to draw in.\n{_RETURN_FIG}",
    "returns": "The figure with ``return_fig=True``; None if the figure is shown; otherwise",
}
"""Parts of docstrings by their placeholder."""

_GREY = "lightgray"
_EXTENSIONS = (".svg", ".pdf", ".png")
_LEAST_DPI = 150
_LONGEST = 30
"""Letters of a name that are shown."""


fill_docs = with_docs(_DOCS)
"""Fill the shared parts, such as ``{show_save}``, into the docstring of a plot."""


def make_panels(
    n: int, ncols: int, size: tuple[float, float], **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure with ``n`` panels in rows of ``ncols``.

    Parameters
    ----------
    n
        Number of panels.
    ncols
        Panels in a row at most.
    size
        Width and height of the figure in inches.
    **kwargs
        Passed to :func:`matplotlib.pyplot.subplots`.
    """
    ncols = min(ncols, n)
    fig, grid = plt.subplots(
        -(-n // ncols), ncols, figsize=size, squeeze=False, layout="constrained", **kwargs
    )
    axes = list(grid.flat)
    for empty in axes[n:]:
        empty.remove()
    return fig, axes[:n]


def open_frame(ax: Axes) -> None:
    """Hide the grid and the upper and right spines."""
    ax.spines[["top", "right"]].set_visible(False)
    # settings of scanpy may draw lines across the text
    ax.grid(visible=False, which="both")


def finish(
    name: str,
    fig: Figure,
    axes: Axes | list[Axes],
    *,
    title: str | None,
    show: bool | None,
    save: bool | str | Path | None,
    return_fig: bool,
) -> Any:
    """Add the title to a figure; save, show and return it as scanpy does.

    A text as ``save`` is appended to ``name``; the file goes to ``scanpy.settings.figdir``, and
    ``autosave``, ``autoshow``, ``plot_suffix`` and ``file_format_figs`` apply. A
    :class:`~pathlib.Path` is used as it is.

    Returns
    -------
    The figure with ``return_fig``; None if the figure is shown; otherwise ``axes``.
    """
    if title is not None:
        fig.suptitle(title, fontsize="medium")
    if return_fig and show is None:
        show = False
    save = sc.settings.autosave if save is None else save
    show = sc.settings.autoshow if show is None else show
    if save is not False:
        path = _path(name, save)
        path.parent.mkdir(parents=True, exist_ok=True)
        dpi = plt.rcParams["savefig.dpi"]
        dpi = max(fig.dpi if dpi == "figure" else dpi, _LEAST_DPI)
        fig.savefig(path, dpi=dpi, bbox_inches="tight")
        logger.info("saved figure to %s", path)
    if show:
        plt.show()
    if save is not False and not return_fig:
        plt.close(fig)
    if return_fig:
        return fig
    return None if show else axes


def _path(name: str, save: bool | str | Path) -> Path:
    if isinstance(save, Path):
        return save
    extension = f".{sc.settings.file_format_figs}"
    if isinstance(save, str):
        for known in _EXTENSIONS:
            if save.endswith(known):
                save, extension = save.removesuffix(known), known
                break
        name += save
    return Path(sc.settings.figdir) / f"{name}{sc.settings.plot_suffix}{extension}"


def short(name: object, longest: int = _LONGEST) -> str:
    """Shorten a name for a figure: one line, without the middle of a long name.

    Names of files and of populations often start alike, and more rarely end alike.
    """
    text = visible(str(name))
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[half - longest :]}"


def choose_groups(known: list[str], wanted: Sequence[str] | str | None, where: str) -> list[str]:
    """Return the wanted groups, by default all, and check that they exist.

    Parameters
    ----------
    known
        Names of the groups that have cells.
    wanted
        Name or names to choose; None for all.
    where
        Place of the groups, for messages.

    Raises
    ------
    KeyError
        If a group does not exist.
    ValueError
        If no group is chosen.
    """
    wanted = [wanted] if isinstance(wanted, str) else wanted
    names = known if wanted is None else [str(name) for name in wanted]
    missing = [name for name in names if name not in known]
    if missing:
        raise KeyError(
            f"There is no group {', '.join(map(repr, missing))} in {where} (there is: "
            f"{', '.join(known)})."
        )
    if not names:
        raise ValueError("groups is empty: name at least one.")
    return names


def clusters_of(adata: AnnData, key: str) -> pd.Series:
    """Return the column with the clusters.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no cell has a cluster.
    """
    if key not in adata.obs:
        raise KeyError(
            f"There is no clustering {key!r} in .obs: run scmoe.tl.cluster(adata, "
            f"key_added={key!r}) first, or name the clustering with key=."
        )
    labels = adata.obs[key]
    if labels.isna().all():
        raise ValueError(f"There is no cluster to show: .obs[{key!r}] has no value.")
    return labels


def categories(values: pd.Series) -> list[str]:
    """Return the names of the groups of a column, in the order of their colours."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(category) for category in values.cat.categories]
    return sorted(values.dropna().astype(str).unique())


def colors_of(adata: AnnData, column: str) -> dict[str, str] | None:
    """Return the colour of each group of a column; None if the column has no colours yet."""
    names = categories(adata.obs[column])
    palette = adata.uns.get(f"{column}_colors", ())
    return dict(zip(names, map(str, palette), strict=True)) if len(palette) == len(names) else None


def set_colors(adata: AnnData, column: str) -> None:
    """Give the groups of a categorical column scanpy's default colours."""
    palettes = sc.pl.palettes
    n = len(adata.obs[column].cat.categories)
    several = (palettes.default_20, palettes.default_28, palettes.default_102)
    palette = next((p for p in several if n <= len(p)), ["#808080"] * n)
    adata.uns[f"{column}_colors"] = list(palette[:n])


def share_colors(adata: AnnData, column: str) -> None:
    """Give the groups of a column the colours of the same groups in another column.

    Names of clusters, for example, get the colours of the clusters. Existing colours stay.
    """
    if colors_of(adata, column) is not None:
        return
    values = adata.obs[column].astype("object")
    for slot in list(adata.uns):
        other = str(slot).removesuffix("_colors")
        if other in (slot, column) or other not in adata.obs:
            continue
        known = colors_of(adata, other)
        pairs = pd.DataFrame({"new": values, "old": adata.obs[other].astype("object")})
        pairs = pairs.drop_duplicates()
        if known is None or pairs["new"].duplicated().any() or pairs["old"].duplicated().any():
            continue
        found = {str(new): known.get(str(old), _GREY) for new, old in pairs.to_numpy()}
        adata.uns[f"{column}_colors"] = [
            found.get(name, _GREY) for name in categories(adata.obs[column])
        ]
        return
