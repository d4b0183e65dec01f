"""What happens to a figure once it is drawn, as in scanpy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import scanpy as sc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("scmoe")

_EXTENSIONS = (".svg", ".pdf", ".png")
_LEAST_DPI = 150


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
