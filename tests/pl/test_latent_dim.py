"""The picture of latent dimensions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scmoe import pl


@pytest.fixture
def cells():
    groups = pd.DataFrame(
        {
            "n_cells": [1000, 200, 1],
            "n_latent": pd.array([2, 3, None], dtype="Int64"),
            "n_latent_reconstruction": pd.array([3, 3, None], dtype="Int64"),
        },
        index=["a", "b", "lone"],
    )
    curves = np.array([[0.7, 0.25, 0.05, 0], [0.4, 0.35, 0.25, np.nan], [np.nan] * 4])
    record = {
        "n_latent": 3,
        "threshold": 0.9,
        "explained": np.array([0.5, 0.3, 0.15, 0.05, *np.zeros(96)]),
        "groups": groups,
        "groups_explained": curves,
    }
    return ad.AnnData(np.zeros((2, 1)), uns={"latent_dim": record})


def curve(ax, label):
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return line.get_ydata()


def test_curves_and_sizes(cells):
    first, second = pl.latent_dim(cells, show=False)
    np.testing.assert_allclose(curve(first, "all cells")[:5], [0.5, 0.8, 0.95, 1, 1])
    np.testing.assert_allclose(curve(first, "groups"), [0.7, 0.95, 1, 1])
    assert [text.get_text().strip() for text in first.texts] == ["3 for 90%"]
    (dot,) = (line for line in first.lines if line.get_marker() == "o")
    assert dot.get_xydata().tolist() == [[3, pytest.approx(0.95)]]
    # the dimensions that nothing needs are not shown
    assert first.get_xlim()[1] < 7

    # the first group is on top
    names = [label.get_text() for label in second.get_yticklabels()]
    assert names == ["lone", "b", "a"]
    assert [bar.get_width() for bar in second.patches] == [0, 3, 2]
    assert [text.get_text() for text in second.texts] == ["none (1)", "3 (200)", "2 (1,000)"]


def test_long_names_leave_room_for_the_panels(cells):
    long = "a very long name of a population of cells with much to say"
    table = cells.uns["latent_dim"]["groups"]
    cells.uns["latent_dim"]["groups"] = table.rename(index={"b": long})
    figure = pl.latent_dim(cells, return_fig=True)
    figure.canvas.draw()
    for ax in figure.axes:
        assert ax.get_position().width * figure.get_figwidth() > 1.5


def test_the_label_fits_beside_the_curves(cells):
    with plt.rc_context({"font.size": 14, "axes.labelsize": 14}):
        figure = pl.latent_dim(cells, return_fig=True)
        figure.canvas.draw()
        box = figure.axes[0].yaxis.label.get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.height


def test_chosen_groups(cells):
    _, second = pl.latent_dim(cells, groups=["b"], show=False)
    assert [label.get_text() for label in second.get_yticklabels()] == ["b"]
    # a name of two letters is one name
    table = cells.uns["latent_dim"]["groups"]
    cells.uns["latent_dim"]["groups"] = table.rename(index={"b": "bb"})
    _, second = pl.latent_dim(cells, groups="bb", show=False)
    assert [label.get_text() for label in second.get_yticklabels()] == ["bb"]
    assert len(pl.latent_dim(cells, groups=False, show=False)) == 1
    # h5ad gives a table back; a group without a size can be drawn alone
    _, second = pl.latent_dim(cells, groups=["lone"], show=False)
    assert [text.get_text() for text in second.texts] == ["none (1)"]


def test_without_groups(cells):
    record = cells.uns["latent_dim"]
    del record["groups"], record["groups_explained"]
    (only,) = pl.latent_dim(cells, show=False)
    assert only.get_legend() is None
    with pytest.raises(KeyError, match="groupby"):
        pl.latent_dim(cells, groups=["a"])


def test_refused(cells):
    with pytest.raises(KeyError, match=r"scmoe\.tl\.latent_dim"):
        pl.latent_dim(cells, key="mine")
    with pytest.raises(KeyError, match="no group 'c'"):
        pl.latent_dim(cells, groups=["c"])
    with pytest.raises(ValueError, match="groups is empty"):
        pl.latent_dim(cells, groups=[])


def test_one_dimension(cells):
    cells.uns["latent_dim"] |= {"n_latent": 1, "explained": np.array([1.0])}
    first, _ = pl.latent_dim(cells, show=False)
    assert first.texts[0].get_text().strip() == "1 for 90%"


def test_saved(cells, tmp_path):
    path = tmp_path / "d.png"
    figure = pl.latent_dim(cells, save=path, title="Cells", return_fig=True)
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "Cells"
    assert path.stat().st_size > 1000
