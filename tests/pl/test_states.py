"""Pictures of what varies within clusters, and of what the arms agree on."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scmoe import pl
from scmoe.model._record import from_record
from scmoe.model._states import traverse
from scmoe.tl import cluster, state_genes

LONG = "a marker whose name goes on and on"
LONG_20 = "a marker … on and on"


def table(n_clusters=2, n_dims=2):
    """Three markers in each cluster; the last is constant, and dimension 1 is not in use."""
    rows = []
    for name in range(n_clusters):
        for rank, marker in enumerate(["CD3", LONG, "CD8"], start=1):
            for dimension in range(n_dims):
                effect = np.nan if rank == 3 else 0.9 / rank * (-1) ** dimension
                rows.append(
                    {
                        "cluster": str(name),
                        "marker": marker,
                        "dimension": dimension,
                        "rank": rank,
                        "effect": effect,
                        "lower": effect - 0.05,
                        "upper": effect + 0.04,
                        "r2_min": np.nan if rank == 3 else 0.5 / rank,
                        "reliability": 0.9 if dimension == 0 else 0.05,
                        "n_cells": 1200 - name,
                    }
                )
    made = pd.DataFrame(rows)
    made["cluster"] = pd.Categorical(made["cluster"], categories=made["cluster"].unique())
    return made


def with_table(**kwargs):
    return ad.AnnData(np.zeros((3, 1)), uns={"mine_state_genes": {"table": table(**kwargs)}})


class TestStateGenes:
    def test_points_and_intervals(self):
        axes = pl.state_genes(with_table(), key="mine", show=False)
        assert [ax.get_title() for ax in axes] == ["0\n1,200 cells", "1\n1,199 cells"]
        ax = axes[0]
        names = [text.get_text() for text in ax.get_yticklabels()]
        assert names[::2] == ["CD3", "CD8"]
        assert "…" in names[1]
        assert len(names[1]) == 24
        used, points, _, faint = ax.collections
        segments = np.array(used.get_segments()[:2])
        np.testing.assert_allclose(segments[..., 0], [[0.85, 0.94], [0.4, 0.49]])
        np.testing.assert_allclose(points.get_offsets()[:2, 0], [0.9, 0.45])
        np.testing.assert_allclose(faint.get_offsets()[:2, 0], [-0.9, -0.45])
        assert faint.get_alpha() < points.get_alpha() == 1
        assert to_hex(points.get_facecolor()[0]) != to_hex(faint.get_facecolor()[0])
        # the first in rank on top
        assert ax.get_ylim() == (2.5, -0.5)
        assert [text.get_text() for text in ax.texts] == ["R² 50%", "25%", ""]
        ax.figure.canvas.draw()

    def test_choice(self):
        axes = pl.state_genes(with_table(), key="mine", groups="1", n_markers=1, show=False)
        assert [ax.get_title() for ax in axes] == ["1\n1,199 cells"]
        assert len(axes[0].get_yticks()) == 1

    @pytest.mark.slow
    def test_many_clusters_and_one_dimension(self):
        fig = pl.state_genes(with_table(n_clusters=21, n_dims=1), key="mine", return_fig=True)
        assert len(fig.axes) == 21
        assert not fig.legends
        fig.canvas.draw()

    def test_saved(self, scanpy_settings, tmp_path):
        pl.state_genes(with_table(), key="mine", title="these", save="_well.png", show=False)
        assert (tmp_path / "state_genes_well.png").stat().st_size > 0

    def test_missing(self):
        with pytest.raises(KeyError, match=r"scmoe\.tl\.state_genes"):
            pl.state_genes(with_table())
        with pytest.raises(KeyError, match="'7'"):
            pl.state_genes(with_table(), key="mine", groups=["7"])
        with pytest.raises(ValueError, match="`n_markers`"):
            pl.state_genes(with_table(), key="mine", n_markers=0)
        with pytest.raises(ValueError, match="`ncols`"):
            pl.state_genes(with_table(), key="mine", ncols=0)


def voted(votes, names):
    votes = np.asarray(votes, dtype=np.int16)
    cells = ad.AnnData(np.zeros((len(votes), 1)), obsm={"scmoe_votes": votes})
    proba = pd.DataFrame(
        np.eye(len(names), dtype=np.float32)[votes[:, 0]], index=cells.obs_names, columns=names
    )
    cells.obsm["scmoe_proba"] = proba
    return cells


class TestArms:
    def test_two_arms(self):
        # category 2 has no cell in any arm
        cells = voted([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [3, 1]], ["a", "b", "c", "d"])
        matrix, bars = pl.arms(cells, show=False)
        expected = [[2 / 3, 1 / 4, 0], [0, 2 / 4, 0], [0, 1 / 4, 0]]
        np.testing.assert_allclose(matrix.collections[0].get_array(), expected)
        assert [text.get_text() for text in matrix.get_yticklabels()] == ["a", "b", "d"]
        assert matrix.get_ylabel() == "first arm"
        np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [2 / 3, 1 / 2, 0])
        assert [text.get_text() for text in bars.texts] == ["0.67 (3)", "0.50 (2)", "0.00 (1)"]
        assert matrix.figure._suptitle.get_text() == "mean consensus 0.39 of 3 categories"

    def test_three_arms_are_symmetric(self):
        rng = np.random.default_rng(0)
        cells = voted(rng.integers(0, 20, (400, 3)), [f"category number {i}" for i in range(20)])
        matrix, _ = pl.arms(cells, show=False, title="all")
        shown = matrix.collections[0].get_array()
        np.testing.assert_allclose(shown, shown.T)
        assert matrix.get_ylabel() == "one arm"
        matrix.figure.canvas.draw()

    def test_long_names(self, tmp_path):
        cells = voted([[0, 0], [1, 0]], ["B", "T" * 70])
        matrix, _ = pl.arms(cells, show=False)
        assert len(matrix.get_yticklabels()[1].get_text()) == 30
        fig = pl.arms(cells, save=tmp_path / "arms.png", return_fig=True)
        assert isinstance(fig, Figure)
        assert (tmp_path / "arms.png").stat().st_size > 0

    def test_missing(self):
        cells = voted([[0, 0], [1, 0]], ["a", "b"])
        with pytest.raises(KeyError, match="other_votes"):
            pl.arms(cells, key="other")


CURVE = {
    "chosen": 3,
    "threshold": 0.75,
    "n_categories": np.array([5, 4, 3]),
    "consensus": np.array([0.6, 0.8, 0.96]),
    "lowest": np.array([0.1, 0.7, 0.9]),
    "loss": np.array([9.0, 9.1, 9.2]),
}
"""What pruning saw."""


class TestPruning:
    def test_curves(self, tmp_path):
        cells = ad.AnnData(np.zeros((2, 1)))
        cells.uns["scmoe"] = {"estimates": {"n_categories": CURVE}}
        consensus, loss = pl.pruning(cells, show=False)
        assert consensus.lines[0].get_xydata().tolist() == [[5, 0.6], [4, 0.8], [3, 0.96]]
        assert consensus.lines[1].get_ydata().tolist() == [0.1, 0.7, 0.9]
        assert loss.lines[0].get_ydata().tolist() == [9.0, 9.1, 9.2]
        assert list(consensus.lines[2].get_xdata()) == [3, 3]
        assert list(consensus.lines[3].get_ydata()) == [0.75, 0.75]
        assert consensus.figure._suptitle.get_text() == "3 of 5 categories"
        pl.pruning(cells, save=tmp_path / "pruning.png", title="these", show=False)
        assert (tmp_path / "pruning.png").stat().st_size > 0

    @pytest.mark.parametrize("record", [{}, {"estimates": {"experts": 1}}, {"estimates": 3}])
    def test_missing(self, record):
        cells = ad.AnnData(np.zeros((2, 1)), uns={"scmoe": record})
        with pytest.raises(KeyError, match="the record of the pruning"):
            pl.pruning(cells)


def clustered(x, **kwargs):
    adata = ad.AnnData(x.astype(np.float32), uns=kwargs.pop("uns", {}))
    adata.var_names = [f"CD{i}" for i in range(adata.n_vars - 1)] + [LONG]
    cluster(
        adata,
        model="cpl-mixvae",
        n_clusters=2,
        progress=False,
        model_kwargs={"n_hidden": 16, "n_layers": 1, "n_embed": 4, **kwargs.pop("model", {})},
        train_kwargs={"max_epochs": 2, "batch_size": 60, "accelerator": "cpu"},
        **kwargs,
    )
    return adata


@pytest.fixture(scope="module")
def cells_once():
    rng = np.random.default_rng(0)
    return clustered(rng.normal(size=(120, 8)) + 4 * (np.arange(120) % 2)[:, None])


@pytest.fixture
def cells(cells_once):
    return cells_once.copy()


class TestTraversal:
    def test_lines_and_cells(self, cells):
        axes = pl.traversal(cells, cluster="0", markers=["CD3", LONG], show=False)
        assert len(axes) == 4
        own = (cells.obs["scmoe"] == "0").to_numpy()
        states = cells.obsm["scmoe_state"][own]
        found = traverse(from_record(cells.uns["scmoe"]["model"], "here"), "0", states)
        for i, ax in enumerate(axes):
            dimension, column = divmod(i, 2)
            line = ax.lines[0]
            np.testing.assert_allclose(line.get_xdata(), found.positions[dimension])
            np.testing.assert_allclose(
                line.get_ydata(), found.values[dimension, :, [3, 7][column]]
            )
            drawn = np.array(ax.collections[0].get_offsets())
            expected = np.stack([states[:, dimension], cells.X[own, [3, 7][column]]], 1)
            np.testing.assert_allclose(
                drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)]
            )
        assert [ax.get_title() for ax in axes[:2]] == ["CD3", LONG_20]
        assert axes[0].get_ylabel() == "along dimension 0"
        assert axes[0].figure._suptitle.get_text() == f"cluster 0 ({own.sum()} cells)"
        axes[0].figure.canvas.draw()

    def test_which_markers(self, cells):
        axes = pl.traversal(cells, cluster="0", dims=1, n_markers=3, show=False)
        own = (cells.obs["scmoe"] == "0").to_numpy()
        states = cells.obsm["scmoe_state"][own]
        found = traverse(from_record(cells.uns["scmoe"]["model"], "here"), "0", states, dims=1)
        most = np.argsort(-np.ptp(found.scaled[0], axis=0))[:3]
        titles = [ax.get_title() for ax in axes]
        assert titles == [LONG_20 if name == LONG else name for name in cells.var_names[most]]
        state_genes(cells, progress=False)
        ranked = cells.uns["scmoe_state_genes"]["table"].query("cluster == '0'")["marker"].unique()
        axes = pl.traversal(cells, cluster="0", n_markers=2, show=False)
        titles = [ax.get_title() for ax in axes[:2]]
        assert titles == [LONG_20 if name == LONG else name for name in ranked[:2]]

    def test_images(self, scanpy_settings, tmp_path):
        rng = np.random.default_rng(0)
        images = clustered(rng.random((120, 12)), uns={"image_shape": np.array([4, 3])})
        ax = pl.traversal(images, cluster="0", n_steps=5, show=False)
        assert isinstance(ax, Axes)
        assert [text.get_text().split()[0] for text in ax.get_yticklabels()] == ["0", "1"]
        own = images.obsm["scmoe_state"][images.obs["scmoe"] == "0"]
        found = traverse(from_record(images.uns["scmoe"]["model"], "here"), "0", own, n_steps=5)
        shown = ax.images[0].get_array()
        # the last step of the second dimension
        np.testing.assert_allclose(shown[5:9, 16:19].ravel(), found.values[1, 4], rtol=1e-5)
        assert "images)" in ax.figure._suptitle.get_text()
        pl.traversal(images, cluster="0", save="_well.png", show=False)
        assert (tmp_path / "traversal_well.png").stat().st_size > 0
        # some of the pixels are no image
        assert len(pl.traversal(images, cluster="0", markers="CD1", show=False)) == 2

    def test_counts_are_drawn_at_the_typical_total(self):
        rng = np.random.default_rng(0)
        counts = clustered(rng.poisson(5, (120, 6)), model={"likelihood": "nb"})
        ax = pl.traversal(counts, cluster="0", markers="CD1", dims=0, show=False)[0]
        own = (counts.obs["scmoe"] == "0").to_numpy()
        total = counts.X[own].sum(1)
        expected = counts.X[own, 1] / total * np.exp(np.log(total).mean())
        drawn = np.asarray(ax.collections[0].get_offsets())[:, 1]
        np.testing.assert_allclose(np.sort(drawn), np.sort(expected), rtol=1e-4)

    def test_components(self):
        rng = np.random.default_rng(0)
        adata = ad.AnnData(rng.random((120, 4), np.float32), obsm={"X_rep": rng.random((120, 3))})
        adata.obsm["X_rep"] = adata.obsm["X_rep"].astype(np.float32)
        cluster(
            adata,
            model="cpl-mixvae",
            n_clusters=2,
            use_rep="X_rep",
            progress=False,
            model_kwargs={"n_hidden": 16, "n_layers": 1},
            train_kwargs={"max_epochs": 1, "batch_size": 60, "accelerator": "cpu"},
        )
        axes = pl.traversal(adata, cluster="0", show=False)
        assert {ax.get_title() for ax in axes[:3]} == {"X_rep_0", "X_rep_1", "X_rep_2"}

    @pytest.mark.parametrize(
        ("how", "error", "match"),
        [
            ({"cluster": "7"}, KeyError, "no cluster '7'"),
            ({"key": "other"}, KeyError, "Did not find a clustering"),
            ({"dims": 2}, ValueError, "dimensions 0 to 1"),
            ({"n_steps": 1}, ValueError, "`n_steps`"),
            ({"n_markers": 0}, ValueError, "`n_markers`"),
            ({"markers": ["CD99"]}, KeyError, "does not know 'CD99'"),
            ({"markers": []}, ValueError, "`markers` is empty"),
        ],
    )
    def test_bad_input_is_named(self, cells, how, error, match):
        with pytest.raises(error, match=match):
            pl.traversal(cells, **{"cluster": "0", "show": False, **how})

    def test_other_models_have_no_states(self, cells):
        how = {"n_hidden": 16, "n_layers": 1}
        cluster(
            cells,
            model="moe-vae",
            n_clusters=2,
            n_latent=2,
            key_added="vaes",
            progress=False,
            model_kwargs=how,
            train_kwargs={"max_epochs": 1, "pretrain": False, "accelerator": "cpu"},
        )
        with pytest.raises(ValueError, match="'vaes' is not a clustering by"):
            pl.traversal(cells, cluster="0", key="vaes", show=False)

    def test_what_is_gone_is_named(self, cells):
        fewer = cells[:, 1:].copy()
        with pytest.raises(KeyError, match="clustered are missing: 'CD0'"):
            pl.traversal(fewer, cluster="0", show=False)
        del cells.obsm["scmoe_state"]
        with pytest.raises(KeyError, match="Did not find the states"):
            pl.traversal(cells, cluster="0", show=False)
