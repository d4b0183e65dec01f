"""What happens to a figure once it is drawn, as in scanpy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

from scmoe._core.text import visible

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("scmoe")

_GREY = "lightgray"
_EXTENSIONS = (".svg", ".pdf", ".png")
_LEAST_DPI = 150
_LONGEST = 30
"""Letters of a name that are shown."""


def short(name: object) -> str:
    """Return a name as it is written in a figure: in one line, the middle of a long one left out.

    Names of files and of populations often begin alike, and end alike less often.
    """
    text = visible(str(name))
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]}…{text[-half:]}"


def categories(values: pd.Series) -> list[str]:
    """Return the names of the groups of a column, in the order of their colours."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(category) for category in values.cat.categories]
    return sorted(values.dropna().astype(str).unique())


def colors_of(adata: AnnData, column: str) -> dict[str, str] | None:
    """Return the colour of each group of a column; None where they have none yet."""
    names = categories(adata.obs[column])
    palette = adata.uns.get(f"{column}_colors", ())
    return dict(zip(names, map(str, palette), strict=True)) if len(palette) == len(names) else None


def set_colors(adata: AnnData, column: str) -> None:
    """Give the groups of a categorical column the colours that scanpy would."""
    palettes = sc.pl.palettes
    n = len(adata.obs[column].cat.categories)
    several = (palettes.default_20, palettes.default_28, palettes.default_102)
    palette = next((p for p in several if n <= len(p)), ["#808080"] * n)
    adata.uns[f"{column}_colors"] = list(palette[:n])


def share_colors(adata: AnnData, column: str) -> None:
    """Give the groups of a column the colours that the same groups have in another column.

    Such as names of clusters, which have the colours of the numbers. What has colours keeps them.
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


def finish(
    name: str,
    fig: Figure,
    axes: Axes | list[Axes],
    *,
    show: bool | None,
    save: bool | str | Path | None,
    return_fig: bool,
) -> Figure | Axes | list[Axes] | None:
    """Save, show and return a figure in scanpy's manner.

    ``save`` of text is appended to ``name``; the file goes to ``scanpy.settings.figdir``, and
    ``autosave``, ``autoshow``, ``plot_suffix`` and ``file_format_figs`` apply. A
    :class:`~pathlib.Path` is written to as it is.
    """
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
