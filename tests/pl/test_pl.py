"""Figures: what is in them, where they go, and what goes wrong."""

from __future__ import annotations

import inspect
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix

from scmoe import pl


@pytest.fixture
def clustered(blobs, scanpy_settings):
    """Blobs with a clustering and a map."""
    blobs.obs["scmoe"] = pd.Categorical(blobs.obs["population"].cat.codes.astype(str))
    blobs.obsm["X_umap"] = blobs.X[:, :2].copy()
    return blobs


def many(n_clusters, n_markers):
    """A clustering of the size that has to stay readable."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    codes = np.arange(n_clusters).repeat(5)
    markers = [f"marker {i}" for i in range(n_markers)]
    adata = AnnData(
        rng.random((codes.size, n_markers)).astype(np.float32),
        obs=pd.DataFrame(index=[f"cell_{i}" for i in range(codes.size)]),
        var=pd.DataFrame(index=markers),
    )
    adata.obs["scmoe"] = pd.Categorical.from_codes(codes, [str(i) for i in range(n_clusters)])
    adata.obsm["X_umap"] = rng.random((codes.size, 2))
    return adata


def texts_are_inside(fig, ax):
    """Tell whether what belongs to the axes lies within the figure, up to a pixel."""
    fig.draw_without_rendering()
    box = ax.get_tightbbox()
    return box.x0 > -1 and box.y0 > -1 and box.x1 < fig.bbox.x1 + 1 and box.y1 < fig.bbox.y1 + 1


def labels_do_not_overlap(labels):
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


HISTORY = {
    name: pd.DataFrame({name: values}, index=pd.RangeIndex(3, name="epoch"))
    for name, values in {
        "train_loss_step": [9.0, 9.0, 9.0],
        "train_loss_epoch": [3.0, 2.0, 1.0],
        "validation_loss": [3.5, 2.5, 1.5],
        "similarity_train": [1.0, 0.5, 0.2],
        "n_occupied_train": [5, 4, 4],
        "kl_global_train": [0.0, 0.0, 0.0],
    }.items()
}


class TestClusters:
    def test_default(self, clustered):
        ax = pl.clusters(clustered, show=False)
        assert isinstance(ax, Axes)
        assert ax.get_title() == "scmoe"
        assert [text.get_text() for text in ax.get_legend().get_texts()] == list("01234")
        assert sorted(text.get_text() for text in ax.texts) == list("01234")
        assert sum(len(points.get_offsets()) for points in ax.collections) == clustered.n_obs
        assert len(clustered.uns["scmoe_colors"]) == 5

    def test_panels(self, clustered):
        colors = ["scmoe", "population", "CD3"]
        axes = pl.clusters(clustered, color=colors, show=False, title=["a", "b", "c"])
        assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
        # text in place of a legend only where it is short
        assert not list(pl.clusters(clustered, color="population", show=False, on_map=False).texts)
        assert len(axes[1].texts) == 5
        assert axes[2].get_legend() is None
        assert len(axes[2].child_axes) == 1

    def test_text_and_missing_values(self, clustered):
        clustered.obs["name"] = clustered.obs["population"].astype(str) + " of some length"
        clustered.obs.loc[clustered.obs_names[:10], "name"] = None
        ax = pl.clusters(clustered, color="name", show=False)
        assert [t.get_text() for t in ax.get_legend().get_texts()][-1] == "NA"
        assert not ax.texts

    def test_view(self, clustered):
        clustered.obs["name"] = clustered.obs["population"].astype(str)
        view = clustered[:100]
        pl.clusters(view, color=["scmoe", "name"], show=False)
        assert view.is_view
        assert not view.uns

    def test_groups(self, clustered):
        ax = pl.clusters(clustered, groups=["1", "2"], show=False)
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["1", "2", "NA"]
        assert sorted(t.get_text() for t in ax.texts) == ["1", "2"]

    @pytest.mark.parametrize("basis", ["X_scmoe", "scmoe"])
    def test_basis(self, clustered, basis):
        clustered.obsm["X_scmoe"] = np.random.default_rng(0).random((clustered.n_obs, 4))
        ax = pl.clusters(clustered, basis=basis, show=False)
        np.testing.assert_allclose(
            np.sort(np.concatenate([p.get_offsets()[:, 0] for p in ax.collections])),
            np.sort(clustered.obsm["X_scmoe"][:, 0]),
        )

    def test_other_key(self, clustered):
        clustered.obs["mine"] = clustered.obs.pop("scmoe")
        assert pl.clusters(clustered, key="mine", show=False).get_title() == "mine"

    def test_thirty_clusters(self):
        adata = many(30, 2)
        fig = pl.clusters(adata, color=["scmoe", "scmoe"], return_fig=True)
        assert all(texts_are_inside(fig, ax) for ax in fig.axes)
        for ax in fig.axes:
            assert labels_do_not_overlap(ax.get_legend().get_texts())
        first, second = (ax.get_tightbbox() for ax in fig.axes)
        assert not first.overlaps(second)

    def test_rare_clusters(self):
        rng = np.random.default_rng(0)
        codes = np.repeat([2, 0, 1], [24, 8000, 3000])
        centres, spread = np.array([[0, 0], [8, 0], [0, 0.4]]), np.array([[1.0], [1.0], [0.05]])
        points = centres[codes] + spread[codes] * rng.normal(size=(codes.size, 2))
        adata = AnnData(np.zeros((codes.size, 1), dtype=np.float32))
        adata.obs["scmoe"] = pd.Categorical.from_codes(codes, list("012"))
        adata.obsm["X_umap"] = points
        fig = pl.clusters(adata, return_fig=True)
        ax = fig.axes[0]
        drawn = ax.collections[-1]
        # last, and in points that can be seen
        np.testing.assert_array_equal(drawn.get_offsets()[-24:], points[:24])
        assert drawn.get_sizes()[-24:].min() > 1.3 * drawn.get_sizes()[0]
        fig.canvas.draw()
        pixels = ax.transData.transform(points[codes == 2])
        for text in ax.texts:
            box = text.get_window_extent()
            hidden = [box.contains(*pixel) for pixel in pixels]
            assert np.mean(hidden) < 0.1
        large = next(text for text in ax.texts if text.get_text() == "1")
        x, y = large.get_position()
        assert abs(x - 8) < 1
        assert abs(y) < 1

    def test_the_same_groups_have_the_same_colors(self, clustered):
        names = ["Z", "Y", "X", "W", "V"]
        clustered.obs["named"] = clustered.obs["scmoe"].map(dict(zip("01234", names, strict=True)))
        clustered.obs["named"] = clustered.obs["named"].astype(str)
        pl.clusters(clustered, color=["scmoe", "named", "population"], show=False)
        assert list(clustered.uns["named_colors"]) == list(clustered.uns["scmoe_colors"])[::-1]
        # colours of the user stay
        clustered.uns["population_colors"] = own = ["#000000"] * 5
        pl.clusters(clustered, color=["scmoe", "population"], show=False)
        assert list(clustered.uns["population_colors"]) == own
        ax = pl.markers(clustered, key="named", show=False)
        bars = next(child for child in ax.child_axes if child.get_title(loc="left") == "cells")
        row = [label.get_text() for label in ax.get_yticklabels()].index("Z")
        assert to_hex(bars.patches[row].get_facecolor()[:3]) == to_hex(
            clustered.uns["scmoe_colors"][0]
        )

    def test_long_names_are_cut_in_the_middle(self, clustered):
        names = {str(i): f"Staurosporine_{'x' * 40}_{i}" for i in range(5)}
        clustered.obs["scmoe"] = clustered.obs["scmoe"].cat.rename_categories(names)
        fig = pl.clusters(clustered, return_fig=True)
        texts = [t.get_text() for t in fig.axes[0].get_legend().get_texts()]
        assert max(map(len, texts)) == 30
        assert [text[-2:] for text in texts] == [f"_{i}" for i in range(5)]

    def test_ax(self, clustered):
        _, ax = plt.subplots()
        assert pl.clusters(clustered, ax=ax, show=False) is ax
        with pytest.raises(ValueError, match="ax takes one panel"):
            pl.clusters(clustered, color=["scmoe", "CD3"], ax=ax)

    def test_errors(self, clustered):
        with pytest.raises(KeyError, match=r"run scmoe\.tl\.cluster"):
            pl.clusters(clustered, key="nothing")
        with pytest.raises(KeyError, match="neither a column"):
            pl.clusters(clustered, color=["scmoe", "nothing"])
        with pytest.raises(KeyError, match="There is no map 'tsne'"):
            pl.clusters(clustered, basis="tsne")
        with pytest.raises(ValueError, match="titles"):
            pl.clusters(clustered, title=["a", "b"])
        with pytest.raises(ValueError, match="ncols"):
            pl.clusters(clustered, ncols=0)
        with pytest.raises(ValueError, match="empty"):
            pl.clusters(clustered, color=[])
        clustered.obsm["X_line"] = np.zeros((clustered.n_obs, 1))
        with pytest.raises(ValueError, match="a map needs 2"):
            pl.clusters(clustered, basis="line")
        del clustered.obsm["X_umap"]
        with pytest.raises(KeyError, match=r"sc\.tl\.umap"):
            pl.clusters(clustered)
        assert not plt.get_fignums()

    @pytest.mark.slow
    def test_without_a_map_one_is_drawn(self, clustered, monkeypatch):
        del clustered.obsm["X_umap"]
        params = {"similarity": {"name": "Graph"}}
        clustered.uns["scmoe"] = {"markers": clustered.var_names.to_numpy(), "params": params}
        ax = pl.clusters(clustered, show=False)
        assert ax.get_title() == "scmoe"
        assert len(ax.collections[-1].get_offsets()) == 600
        colors = list(clustered.uns["scmoe_colors"])
        assert list(clustered.obsm) == []
        # a rare cluster that has no cell in the sample does not shift the colours of the others
        labels = clustered.obs["scmoe"].astype(str)
        labels.iloc[0] = "-1"
        clustered.obs["scmoe"] = pd.Categorical(labels, categories=["-1", *"01234"])
        del clustered.uns["scmoe_colors"]
        monkeypatch.setattr("scmoe.pl._map.MAP_CELLS", 100)
        ax = pl.clusters(clustered, show=False)
        assert ax.get_title() == "scmoe (100 of 600 cells)"
        marker = clustered.var_names[0]
        axes = pl.clusters(clustered, color=["scmoe", marker], title=["", "m"], show=False)
        assert [ax.get_title() for ax in axes] == ["100 of 600 cells", "m (100 of 600 cells)"]
        assert len(ax.collections[-1].get_offsets()) == 100
        assert len(clustered.uns["scmoe_colors"]) == 6
        assert [to_hex(c) for c in clustered.uns["scmoe_colors"][:5]] == colors
        found = {to_hex(handle.get_color()) for handle in ax.get_legend().legend_handles}
        assert found <= set(map(to_hex, clustered.uns["scmoe_colors"][1:]))
        # a map of the user's is drawn as it is
        clustered.obsm["X_mine"] = clustered.X[:, :2].copy()
        ax = pl.clusters(clustered, basis="mine", show=False)
        assert len(ax.collections[-1].get_offsets()) == 600


class TestMarkers:
    def test_medians(self, clustered):
        _, ax = plt.subplots()
        assert pl.markers(clustered, ax=ax, standard_scale=None, show=False) is ax
        rows = [label.get_text() for label in ax.get_yticklabels()]
        columns = [label.get_text() for label in ax.get_xticklabels()]
        assert sorted(rows) == list("01234")
        assert columns == list(clustered.var_names)
        shown = pd.DataFrame(ax.collections[0].get_array(), rows, columns)
        for cluster in rows:
            cells = clustered[clustered.obs["scmoe"] == cluster]
            np.testing.assert_allclose(shown.loc[cluster], np.median(cells.X, axis=0), rtol=1e-6)

    @pytest.mark.parametrize(("scale", "axis"), [("var", 0), ("group", 1)])
    def test_scale(self, clustered, scale, axis):
        ax = pl.markers(clustered, standard_scale=scale, show=False)
        shown = np.asarray(ax.collections[0].get_array())
        np.testing.assert_allclose(shown.min(axis=axis), 0)
        np.testing.assert_allclose(shown.max(axis=axis), 1)

    def test_constant_marker(self, clustered):
        clustered.X[:, 0] = 3.0
        ax = pl.markers(clustered, show=False)
        np.testing.assert_array_equal(np.asarray(ax.collections[0].get_array())[:, 0], 0)

    def test_sizes(self, clustered):
        ax = pl.markers(clustered, show=False)
        rows = [label.get_text() for label in ax.get_yticklabels()]
        bars = next(child for child in ax.child_axes if child.get_title(loc="left") == "cells")
        written = dict(zip(rows, (text.get_text() for text in bars.texts), strict=True))
        assert written["0"] == "270 (45.0 %)"
        assert written["4"] == "30 (5.0 %)"

    def test_similar_clusters_are_neighbours(self, clustered):
        # split one population in two: its halves must stand side by side
        labels = clustered.obs["scmoe"].astype(str).to_numpy()
        labels[np.flatnonzero(labels == "0")[::2]] = "9"
        clustered.obs["scmoe"] = pd.Categorical(labels)
        rows = [t.get_text() for t in pl.markers(clustered, show=False).get_yticklabels()]
        assert abs(rows.index("0") - rows.index("9")) == 1

    def test_technical_channels_are_left_out(self, clustered):
        clustered.var["kind"] = ["mass"] * 4 + ["fluor", "time", "copy", "other"]
        ax = pl.markers(clustered, show=False)
        assert [t.get_text() for t in ax.get_xticklabels()] == list(clustered.var_names[:5])
        ax = pl.markers(clustered, markers=["CD45", "CD3"], show=False)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["CD45", "CD3"]
        clustered.var["kind"] = "time"
        with pytest.raises(ValueError, match="markers="):
            pl.markers(clustered)

    @pytest.mark.parametrize("n_clusters", [1, 2])
    def test_few_clusters(self, clustered, n_clusters):
        few = clustered[clustered.obs["scmoe"].astype(int) < n_clusters].copy()
        ax = pl.markers(few, show=False)
        assert len(ax.get_yticklabels()) == n_clusters

    def test_sparse_layers_views_and_missing_labels(self, clustered):
        dense = np.asarray(pl.markers(clustered, show=False).collections[0].get_array())
        clustered.layers["sparse"] = csr_matrix(clustered.X)
        ax = pl.markers(clustered[:], layer="sparse", show=False)
        np.testing.assert_allclose(np.asarray(ax.collections[0].get_array()), dense)
        clustered.obs.loc[clustered.obs["scmoe"] == "0", "scmoe"] = None
        assert len(pl.markers(clustered, show=False).get_yticklabels()) == 4
        clustered.obs["scmoe"] = pd.Categorical([None] * clustered.n_obs)
        with pytest.raises(ValueError, match="no cluster to show"):
            pl.markers(clustered)

    def test_numbers_as_labels(self, clustered):
        clustered.obs["numbers"] = clustered.obs["scmoe"].astype(int)
        ax = pl.markers(clustered, key="numbers", show=False)
        assert sorted(t.get_text() for t in ax.get_yticklabels()) == list("01234")

    def test_readable_at_25_by_40(self):
        fig = pl.markers(many(25, 40), return_fig=True, title="a title")
        ax = fig.axes[0]
        assert texts_are_inside(fig, ax)
        assert labels_do_not_overlap(ax.get_yticklabels())
        assert labels_do_not_overlap(ax.get_xticklabels())
        bars = next(child for child in ax.child_axes if child.get_title(loc="left") == "cells")
        assert labels_do_not_overlap(bars.texts)

    def test_long_names_have_room(self, clustered):
        names = {str(i): f"a cluster with a very long name {i}" for i in range(5)}
        clustered.obs["scmoe"] = clustered.obs["scmoe"].cat.rename_categories(names)
        fig = pl.markers(clustered[:, :3].copy(), return_fig=True, title="a title")
        (ax,) = fig.axes
        assert texts_are_inside(fig, ax)
        title = fig._suptitle.get_window_extent()
        assert not any(title.overlaps(child.get_tightbbox()) for child in ax.child_axes)

    def test_errors(self, clustered):
        with pytest.raises(KeyError, match=r"run scmoe\.tl\.cluster"):
            pl.markers(clustered, key="nothing")
        with pytest.raises(KeyError, match="layer 'nothing'"):
            pl.markers(clustered, layer="nothing")
        with pytest.raises(KeyError, match="no marker 'CD1000'"):
            pl.markers(clustered, markers=["CD3", "CD1000"])
        with pytest.raises(ValueError, match="no marker to show"):
            pl.markers(clustered, markers=[])
        with pytest.raises(ValueError, match="standard_scale"):
            pl.markers(clustered, standard_scale="obs")
        assert not plt.get_fignums()


class TestHistory:
    def test_panels(self, scanpy_settings):
        axes = pl.history(HISTORY, show=False)
        assert [ax.get_title() for ax in axes] == ["loss", "similarity", "n occupied"]
        assert [t.get_text() for t in axes[0].get_legend().get_texts()] == [
            "training",
            "validation",
        ]
        np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), [3, 2, 1])

    def test_keys_and_model(self, scanpy_settings):
        class Model:
            history = HISTORY

        axes = pl.history(Model(), keys=["kl_global"], show=False, logy=False)
        assert [ax.get_title() for ax in axes] == ["kl global"]

    def test_errors(self):
        class Model:
            history = None

        with pytest.raises(ValueError, match="train the model first"):
            pl.history(Model())
        with pytest.raises(ValueError, match="nothing was recorded"):
            pl.history({})
        with pytest.raises(ValueError, match=r"`adata.uns\[\"scmoe\"\]\[\"history\"\]`"):
            pl.history(AnnData(np.ones((2, 2))))
        with pytest.raises(KeyError, match="'nothing' was not recorded"):
            pl.history(HISTORY, keys=["nothing"])


DRAW = {
    "clusters": pl.clusters,
    "markers": pl.markers,
    "history": lambda adata, **kwargs: pl.history(HISTORY, **kwargs),
}


@pytest.mark.parametrize("name", DRAW)
def test_data_and_figures_are_returned(clustered, name, tmp_path):
    before = clustered.copy()
    assert isinstance(DRAW[name](clustered, return_fig=True), Figure)
    DRAW[name](clustered, save=tmp_path / "new" / "figure.png", show=False)
    assert plt.imread(tmp_path / "new" / "figure.png").std() > 0
    np.testing.assert_array_equal(before.X, clustered.X)
    pd.testing.assert_frame_equal(before.obs, clustered.obs)
    assert set(clustered.uns) - set(before.uns) <= {"scmoe_colors"}


@pytest.mark.parametrize("auto", [False, True])
def test_show(auto, monkeypatch, scanpy_settings):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    scanpy_settings.autoshow = auto
    assert (pl.history(HISTORY) is None) == auto
    assert len(shown) == auto
    pl.history(HISTORY, show=True)
    assert len(shown) == auto + 1
    pl.history(HISTORY, show=False)
    pl.history(HISTORY, return_fig=True)
    assert len(shown) == auto + 1


@pytest.mark.parametrize(
    ("save", "file"),
    [
        (True, "history.png"),
        ("_a.svg", "history_a.svg"),
        ("_b", "history_b.png"),
        (".pdf", "history.pdf"),
    ],
)
def test_save_as_scanpy_does(save, file, scanpy_settings, tmp_path):
    scanpy_settings.file_format_figs = "png"
    pl.history(HISTORY, save=save, show=False)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_autosave(scanpy_settings, tmp_path):
    scanpy_settings.autosave = True
    scanpy_settings.file_format_figs = "png"
    scanpy_settings.plot_suffix = "_end"
    pl.history(HISTORY, show=False)
    assert (tmp_path / "history_end.png").exists()
    assert isinstance(pl.history(HISTORY, return_fig=True, save=False), Figure)


@pytest.mark.parametrize("name", pl.__all__)
def test_docstrings_are_filled(name):
    plot = getattr(pl, name)
    assert not re.search(r"\{[a-z_]+\}", plot.__doc__)
    described = re.findall(r"^(\w[\w, ]*)$", plot.__doc__, re.MULTILINE)
    described = {part.strip() for line in described for part in line.split(",")}
    assert set(inspect.signature(plot).parameters) - {"kwargs"} <= described


def test_scanpy_draws_the_same_columns(clustered):
    # what we colour is what scanpy colours: same categories, same colours
    sc.pl.embedding(clustered, "umap", color="scmoe", show=False)
    colors = list(clustered.uns["scmoe_colors"])
    pl.clusters(clustered, show=False)
    assert list(clustered.uns["scmoe_colors"]) == colors


def test_markers_of_a_single_cluster(blobs):
    blobs.obs["scmoe"] = pd.Categorical(["0"] * blobs.n_obs)
    fig = pl.markers(blobs, return_fig=True)
    fig.canvas.draw()  # a layout that does not fit warns, and warnings are errors
    assert fig.axes[0].get_window_extent().height > 20


def test_history_of_a_clustering():
    """The record that ``tl.cluster`` leaves in ``.uns``."""
    record = pd.DataFrame({"loss": [3.0, 2.0], "kl": [0.0, 0.0], "depict": [1.0, 0.5]})
    axes = pl.history(record, show=False)
    assert [ax.get_title() for ax in axes] == ["loss", "depict"]
