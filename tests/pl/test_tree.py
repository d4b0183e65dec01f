"""The drawn tree: what is written on it, and its leaves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from trees import MARKERS, make_clustered, make_stump

from scmoe import pl
from scmoe.tree import Tree


@pytest.fixture
def clustered(scanpy_settings):
    return make_clustered()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ladder(n_leaves: int) -> AnnData:
    """A clustering by a tree that is as deep as it can be: each split sets one leaf apart."""
    n, names = n_leaves - 1, [str(k) for k in range(n_leaves)]
    splits = np.arange(n)
    weights = np.zeros((n, 20), np.float32)
    weights[splits, splits % 20] = 0.8
    weights[splits, (splits + 3) % 20] = 0.6
    cluster = np.full(2 * n + 1, -1, np.int32)
    cluster[2 * splits + 2] = splits
    cluster[2 * n - 1] = n
    tree = Tree(
        markers=np.array([f"marker {i}" for i in range(20)]),
        region=np.where(splits, 2 * splits - 1, 0).astype(np.int32),
        weights=weights,
        threshold=np.linspace(-1, 2, n),
        significance=np.linspace(40, 3, n),
        depth=np.zeros(n),
        sizes=np.ones((n, 2), np.int64),
        cluster=cluster,
    )
    x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    adata = AnnData(x, var=pd.DataFrame(index=tree.markers))
    adata.obs["scmoe"] = pd.Categorical(tree.predict(x).astype(str), categories=names)
    counts = pd.DataFrame(np.eye(n_leaves, dtype=int), columns=names, index=names)
    adata.uns["scmoe"] = {"params": {}, "tree": {**tree.to_record(), "labels": counts}}
    return adata


def test_tree(clustered):
    tree, medians, sizes = pl.tree(clustered, show=False)
    # what is above goes first
    assert texts(tree) == ["CD3 > 1", "CD4 > 2", "CD8 > 3", "CD19 − CD4 > 1"]
    assert [t.get_text() for t in medians.get_yticklabels()] == ["T4", "T8", "rest", "B", "rest"]
    assert [t.get_text() for t in medians.get_xticklabels()] == MARKERS
    assert medians.collections[0].get_array().tolist() == [
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert [t.split()[0] for t in texts(sizes)] == ["40", "30", "10", "5", "15"]
    # the text of a split is between the leaves that it sets apart
    assert [t.get_position()[1] for t in tree.texts] == [2.5, 0.5, 1.5, 3.5]
    # the more significant, the thicker; two branches a split
    widths = [line.get_linewidth() for line in tree.lines]
    assert widths[::2] == widths[1::2]
    assert widths[0] > widths[2] > widths[6] > widths[4]


def test_colors(clustered):
    clustered.uns["scmoe_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    tree = pl.tree(clustered, show=False)[0]
    drawn = [to_hex(color) for color in tree.collections[-1].get_facecolors()]
    assert drawn == ["#222222", "#333333", "#444444", "#111111", "#444444"]
    del clustered.uns["scmoe_colors"]
    pl.tree(clustered, show=False)
    assert len(set(clustered.uns["scmoe_colors"])) == 4
    view = clustered[:90]
    pl.tree(view, show=False)
    assert view.is_view


def test_markers(clustered):
    medians = pl.tree(clustered, markers=["CD19", "CD3"], show=False)[1]
    assert [t.get_text() for t in medians.get_xticklabels()] == ["CD19", "CD3"]
    clustered.uns["scmoe"]["tree"]["weights"][2] = [1, 0, 0, 0]
    # those on a branch
    medians = pl.tree(clustered, show=False)[1]
    assert [t.get_text() for t in medians.get_xticklabels()] == ["CD3", "CD4", "CD19"]


def test_one_population(scanpy_settings):
    tree, medians, _ = pl.tree(make_clustered(make_stump()), show=False)
    assert not texts(tree)
    assert [t.get_text() for t in medians.get_yticklabels()] == ["all"]


def test_many_leaves_are_readable(scanpy_settings):
    fig = pl.tree(ladder(30), title="thirty", return_fig=True)
    assert max(fig.get_size_inches()) < 30
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    right = fig.axes[0].get_window_extent().x1
    assert max(box.x1 for box in boxes) < right


def test_show_and_save(clustered, tmp_path):
    fig = pl.tree(clustered, return_fig=True, title="a title")
    assert isinstance(fig, Figure)
    assert fig.get_suptitle() == "a title"
    pl.tree(clustered, save=tmp_path / "here.png", show=False)
    pl.tree(clustered, save="_well.pdf", show=False)
    assert {path.name for path in tmp_path.iterdir()} == {"here.png", "tree_well.pdf"}
    plt.close("all")


def test_mistakes(clustered):
    for kwargs, error, message in (
        ({"key": "leiden"}, KeyError, "Did not find a clustering"),
        ({"markers": ["CD9"]}, KeyError, "no marker .*CD9"),
        ({"markers": []}, ValueError, "no markers"),
        ({"markers": ["CD3", "CD3"]}, ValueError, "twice"),
    ):
        with pytest.raises(error, match=message):
            pl.tree(clustered, **kwargs)
    assert "scmoe_colors" not in clustered.uns
