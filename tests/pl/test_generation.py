"""Figures of images, priors and generated cells: what is in them, and what goes wrong."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix

from scmoe import metrics, pl


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def names_of(labels):
    return [label.get_text() for label in labels]


def is_inside(fig, ax):
    """Tell whether what belongs to the axes lies within the figure, up to a pixel."""
    fig.draw_without_rendering()
    box = ax.get_tightbbox()
    return box.x0 > -1 and box.y0 > -1 and box.x1 < fig.bbox.x1 + 1 and box.y1 < fig.bbox.y1 + 1


@pytest.fixture
def pictures():
    """Nine images of 4 x 3 pixels; image i has the value i / 10 and a white last pixel."""
    X = np.repeat(np.arange(9)[:, None] / 10, 12, axis=1).astype(np.float32)
    X[:, -1] = 1
    adata = AnnData(X, obs=pd.DataFrame(index=[f"i{i}" for i in range(9)]))
    adata.obs["cluster"] = pd.Categorical(["10"] * 2 + ["9"] * 6 + [None])
    adata.uns["image_shape"] = np.array([4, 3])
    return adata


class TestImages:
    def shown(self, ax):
        return np.ma.filled(ax.images[0].get_array(), np.nan)

    def test_groups(self, pictures):
        fig = pl.images(pictures, groupby="cluster", n=3, return_fig=True)
        (ax,) = fig.axes
        assert names_of(ax.get_yticklabels()) == ["9", "10"]
        image = self.shown(ax)
        # 4 x 3 pixels and a space of 1 to the next
        assert image.shape == (9, 12)
        assert np.isnan(image[4]).all()
        values = image[[0, 5]][:, [0, 4, 8]]
        assert set(np.round(values[0] * 10)) <= {2, 3, 4, 5, 6, 7}
        assert len(set(values[0])) == 3
        assert sorted(np.round(values[1, :2] * 10)) == [0, 1]
        assert np.isnan(values[1, 2])
        # row by row: the last pixel is at the lower right
        assert image[3, 2] == 1
        assert is_inside(fig, ax)

    def test_chosen_groups(self, pictures):
        ax = pl.images(pictures, groupby="cluster", groups=["10"], n=2, show=False)
        assert names_of(ax.get_yticklabels()) == ["10"]

    def test_grid(self, pictures):
        ax = pl.images(pictures, n=3, show=False)
        values = self.shown(ax)[::5, ::4]
        assert sorted(np.round(values.ravel() * 10)) == list(range(9))
        assert not names_of(ax.get_yticklabels())
        assert self.shown(pl.images(pictures, n=5, show=False)).shape[0] == 2 * 5 - 1

    def test_seed(self, pictures):
        a, b, c = (
            self.shown(pl.images(pictures, n=2, random_state=i, show=False)) for i in (0, 0, 1)
        )
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c, equal_nan=True)

    def test_colours_come_last(self):
        X = np.zeros((1, 2, 2, 3), dtype=np.float32)
        X[0, 0, 1] = [1, 0, 0.5]
        adata = AnnData(X.reshape(1, -1))
        image = self.shown(pl.images(adata, n=1, image_shape=(2, 2, 3), show=False))
        np.testing.assert_allclose(image[0, 1], [1, 0, 0.5])
        np.testing.assert_allclose(image[1, 1], 0)
        np.testing.assert_allclose(image[:, 2], 1)
        one = self.shown(pl.images(adata, n=1, image_shape=(4, 3, 1), show=False))
        assert one.shape == (4, 4)

    def test_sparse_and_layers(self, pictures):
        expected = self.shown(pl.images(pictures, n=3, show=False))
        pictures.layers["x"] = csr_matrix(pictures.X)
        pictures.X = np.zeros_like(pictures.X)
        image = self.shown(pl.images(pictures, n=3, layer="x", show=False))
        np.testing.assert_array_equal(image, expected)

    def test_other_limits(self, pictures):
        pictures.X *= 255
        with pytest.raises(ValueError, match="to vmax=1: scale the images"):
            pl.images(pictures, show=False)
        ax = pl.images(pictures, vmax=255, show=False)
        assert ax.images[0].get_clim() == (0, 255)

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({"image_shape": (5, 3)}, ValueError, "5 x 3 have 15 pixels, but adata has 12"),
            ({"image_shape": (3, 2, 2)}, ValueError, "1, 3 or 4 colours"),
            ({"image_shape": (12,)}, ValueError, "must be"),
            ({"groupby": "nothing"}, KeyError, "no column 'nothing'"),
            ({"groupby": "cluster", "groups": ["3"]}, KeyError, "no group '3'"),
            ({"groupby": "cluster", "groups": []}, ValueError, "groups is empty"),
            ({"groups": ["9"]}, ValueError, "needs groupby"),
            ({"n": 0}, ValueError, "n must be 1"),
            ({"vmin": 1.0}, ValueError, "vmin must be below"),
            ({"layer": "no"}, KeyError, "'no'"),
        ],
    )
    def test_mistakes(self, pictures, kwargs, error, message):
        with pytest.raises(error, match=message):
            pl.images(pictures, show=False, **kwargs)

    def test_no_shape(self, pictures):
        del pictures.uns["image_shape"]
        with pytest.raises(ValueError, match="give image_shape"):
            pl.images(pictures, show=False)


@pytest.fixture
def with_prior():
    """Eight cells: three of class 10, one of 9, two ambiguous, two of no class."""
    adata = AnnData(np.zeros((8, 1), dtype=np.float32))
    adata.obs["scmoe"] = pd.Categorical(["0", "0", "1", "1", "0", "10", "10", None])
    adata.obsm["marker_prior"] = pd.DataFrame(
        [[1, 0], [1, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5], [0, 0], [0, 0]],
        columns=["class 10", "class 9"],
        index=adata.obs_names,
        dtype=np.float32,
    )
    return adata


class TestPrior:
    def test_counts(self, with_prior):
        fig = pl.prior(with_prior, return_fig=True)
        ax = fig.axes[0]
        assert names_of(ax.get_yticklabels()) == [
            "class 9 (1)",
            "class 10 (3)",
            "ambiguous (2)",
            "no class (1)",
        ]
        assert names_of(ax.get_xticklabels()) == ["0", "1", "10"]
        assert texts_of(ax) == ["", "1", "", "2", "1", "", "1", "", "1", "", "", "1"]
        np.testing.assert_allclose(
            ax.collections[0].get_array(),
            [[0, 1, 0], [2 / 3, 1 / 3, 0], [1 / 2, 0, 1 / 2], [0, 0, 1]],
        )
        assert is_inside(fig, ax)

    def test_all_certain_as_array(self, with_prior):
        with_prior.obsm["own"] = csr_matrix(np.eye(3)[[0, 0, 0, 0, 1, 1, 1, 1]])
        ax = pl.prior(with_prior, prior="own", show=False)
        assert names_of(ax.get_yticklabels()) == ["0 (4)", "1 (3)", "2 (0)"]

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({"key": "leiden"}, KeyError, "no clustering 'leiden'"),
            ({"prior": "no"}, KeyError, "no prior 'no' in .obsm"),
            ({"prior": "bad"}, ValueError, "NaN or negative"),
            ({"key": "empty"}, ValueError, "no cluster to show"),
        ],
    )
    def test_mistakes(self, with_prior, kwargs, error, message):
        with_prior.obsm["bad"] = np.full((8, 2), -1.0)
        with_prior.obs["empty"] = np.nan
        with pytest.raises(error, match=message):
            pl.prior(with_prior, show=False, **kwargs)


TABLE = pd.DataFrame(
    [[-0.001, 1.2], [1.2, np.nan]], index=["a", "b"], columns=["a", "b"], dtype=np.float64
)


class TestMMD:
    def test_fields(self):
        fig = pl.mmd(TABLE, return_fig=True)
        ax = fig.axes[0]
        assert texts_of(ax) == ["0.00", "1.20", "1.20", "–"]
        assert ax.collections[0].get_clim() == (0, 1.2)
        assert is_inside(fig, ax)

    def test_scaled(self):
        labels = np.repeat([0, 1], 300)
        x = np.random.default_rng(0).normal(size=(600, 2)) + 9 * labels[:, None]
        fig = pl.mmd(metrics.mmd_table(x, labels, statistic="scaled"), return_fig=True)
        fig.draw_without_rendering()
        ax = fig.axes[0]
        assert "." not in "".join(texts_of(ax))
        assert "-0" not in texts_of(ax)
        assert ax.child_axes[0].get_xlabel() == "scaled MMD statistic"

    def test_in_own_axes(self):
        _, axes = plt.subplots(1, 2)
        assert pl.mmd(TABLE, ax=axes[1], show=False) is axes[1]
        assert not axes[0].collections

    @pytest.mark.parametrize("table", [TABLE.to_numpy(), TABLE.astype(str), TABLE * np.nan])
    def test_mistakes(self, table):
        with pytest.raises(ValueError, match=r"table"):
            pl.mmd(table, show=False)


class TestGenerated:
    def test_markers(self, blobs):
        real, generated = blobs[:400].copy(), blobs[400:, ::-1].copy()
        fig = pl.generated(real, generated, return_fig=True)
        assert [ax.get_title() for ax in fig.axes] == list(generated.var_names)
        for ax in fig.axes:
            grey, line = ax.patches
            for steps in (grey, line):
                values, edges, _ = steps.get_data()
                assert np.sum(values * np.diff(edges)) == pytest.approx(1)
            np.testing.assert_array_equal(grey.get_data().edges, line.get_data().edges)
            assert is_inside(fig, ax)
        assert names_of(fig.legends[0].get_texts()) == ["real", "generated"]

    def test_histograms_are_those_of_the_marker(self, blobs):
        generated = blobs[:, ["CD8"]].copy()
        generated.X = generated.X + 10
        (ax,) = pl.generated(blobs, generated, show=False)
        means = []
        for steps in ax.patches:
            values, edges, _ = steps.get_data()
            means.append(np.average((edges[1:] + edges[:-1]) / 2, weights=values))
        mean = blobs[:, "CD8"].X.mean()
        np.testing.assert_allclose(means, [mean, mean + 10], atol=0.1)

    def test_groups(self, blobs):
        generated = blobs[blobs.obs["population"] != "B"].copy()
        generated.obs["cluster"] = generated.obs.pop("population")
        fig = pl.generated(
            blobs,
            generated,
            groupby=("population", "cluster"),
            groups=["pDC", "B"],
            markers=["CD3", "CD4", "CD8"],
            return_fig=True,
        )
        assert [ax.get_title() for ax in fig.axes] == ["CD3", "CD4", "CD8", "", "", ""]
        assert [ax.get_ylabel() for ax in fig.axes[::3]] == ["pDC", "B"]
        # nothing was generated of B
        assert [len(ax.patches) for ax in fig.axes] == [2, 2, 2, 1, 1, 1]
        # fewer bins for the 30 cells of pDC than for the 150 of B
        bins = [len(ax.patches[0].get_data().values) for ax in fig.axes[::3]]
        assert bins == [12, 21]
        assert all(is_inside(fig, ax) for ax in fig.axes)

    def test_constant_marker(self, blobs):
        blobs.X[:, 0] = 3
        axes = pl.generated(blobs, blobs.copy(), show=False)
        assert axes[0].get_xlim() == (2.5, 3.5)

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({"groupby": "population", "groups": ["X"]}, KeyError, "no group 'X'"),
            ({"groupby": "population", "groups": []}, ValueError, "groups is empty"),
            ({"groups": ["T"]}, ValueError, "needs groupby"),
            ({"markers": ["CD99"]}, KeyError, "real lacks the marker 'CD99'"),
            ({"groupby": "well"}, KeyError, "no column 'well'"),
            ({"bins": 0}, ValueError, "bins and ncols"),
        ],
    )
    def test_mistakes(self, blobs, kwargs, error, message):
        with pytest.raises(error, match=message):
            pl.generated(blobs, blobs.copy(), show=False, **kwargs)

    def test_too_many_panels(self):
        pixels = AnnData(np.zeros((3, 301), dtype=np.float32))
        with pytest.raises(ValueError, match="301 panels"):
            pl.generated(pixels, pixels.copy(), show=False)


@pytest.mark.parametrize("name", ["images", "prior", "mmd", "generated"])
class TestShowAndSave:
    def draw(self, name, request, **kwargs):
        if name == "mmd":
            return pl.mmd(TABLE, **kwargs)
        if name == "generated":
            blobs = request.getfixturevalue("blobs")
            return pl.generated(blobs, blobs.copy(), markers=["CD3"], **kwargs)
        if name == "prior":
            return pl.prior(request.getfixturevalue("with_prior"), **kwargs)
        return pl.images(request.getfixturevalue("pictures"), groupby="cluster", **kwargs)

    def test_what_is_returned(self, name, request, scanpy_settings, tmp_path):
        assert isinstance(self.draw(name, request, return_fig=True), Figure)
        axes = self.draw(name, request, save="_a.png", show=False, title="A title")
        assert isinstance(axes[0] if name == "generated" else axes, Axes)
        assert plt.imread(tmp_path / f"{name}_a.png").std() > 0
