"""Random changes of images, by their moments, and of cells, by the segments they stay on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe.nn import (
    Augments,
    DropoutAugment,
    ImageAugment,
    NeighborAugment,
    ThinAugment,
)


def images(n, *shape, seed=0):
    return torch.rand(n, math.prod(shape), generator=torch.manual_seed(seed), dtype=torch.float64)


def with_numpy(x, shape, change):
    """The rows of ``x`` after ``change`` of their arrays (n, height, width, ...)."""
    return torch.from_numpy(change(x.numpy().reshape(-1, *shape)).reshape(len(x), -1).copy())


OFF = {"rotation": 0, "zoom": 0, "shift": 0}


def augmented(x, shape, seed=0, **kwargs):
    torch.manual_seed(seed)
    return ImageAugment(shape, **kwargs)(x, torch.arange(len(x)))


def fix_draws(monkeypatch, angle=0.5, right=0.5, down=0.5, mirror=0.9):
    """Let every image draw these numbers, from 0 to 1; 0.5 is no change."""
    draws = torch.tensor([angle, 0.5, right, down, mirror])
    monkeypatch.setattr(
        torch, "rand", lambda rows, n, **_: draws.unsqueeze(1).expand(rows, n).clone()
    )


@pytest.mark.parametrize("shape", [(4, 4), (5, 5, 3)])
def test_a_quarter_turn(monkeypatch, shape):
    x = images(2, *shape)
    fix_draws(monkeypatch, angle=1.0)
    drawn = augmented(x, shape, rotation=90, zoom=0, shift=0)
    turned = with_numpy(x, shape, lambda a: np.rot90(a, -1, axes=(1, 2)))
    torch.testing.assert_close(drawn, turned, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(4, 10), (4, 10, 2)])
def test_a_shift_by_whole_pixels(monkeypatch, shape):
    # half of the height down, a fifth of the width to the left
    x = images(2, *shape)
    fix_draws(monkeypatch, right=0.3, down=1.0)

    def moved(a):
        out = np.zeros_like(a)
        out[:, 2:, :-2] = a[:, :-2, 2:]
        return out

    drawn = augmented(x, shape, rotation=0, zoom=0, shift=0.5)
    torch.testing.assert_close(drawn, with_numpy(x, shape, moved), atol=1e-6, rtol=0)


def test_a_mirrored_image_is_turned_as_the_others(monkeypatch):
    x = images(2, 5, 5)
    fix_draws(monkeypatch, angle=1.0, mirror=0.1)
    drawn = augmented(x, (5, 5), rotation=90, zoom=0, shift=0, flip=True)
    turned = with_numpy(x, (5, 5), lambda a: np.rot90(a[:, :, ::-1], -1, axes=(1, 2)))
    torch.testing.assert_close(drawn, turned, atol=1e-6, rtol=0)


def test_a_mirrored_image_is_moved_where_it_would_have_been(monkeypatch):
    x = images(2, 4, 10)
    fix_draws(monkeypatch, right=0.6, mirror=0.1)

    def changed(a):
        out = np.zeros_like(a)
        out[:, :, 1:] = a[:, :, ::-1][:, :, :-1]
        return out

    drawn = augmented(x, (4, 10), rotation=0, zoom=0, shift=0.5, flip=True)
    torch.testing.assert_close(drawn, with_numpy(x, (4, 10), changed), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)])
def test_nothing_to_do_changes_nothing(shape):
    x = images(3, *shape)
    torch.testing.assert_close(augmented(x, shape, **OFF), x)


def test_the_seed_decides():
    x = images(5, 8, 8)
    first, again, other = (augmented(x, (8, 8), seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


def test_half_of_the_images_are_mirrored():
    x = images(400, 3, 4)
    drawn = augmented(x, (3, 4), flip=True, **OFF)
    mirrored = with_numpy(x, (3, 4), lambda a: a[:, :, ::-1])
    same = torch.isclose(drawn, x).all(1)
    turned = torch.isclose(drawn, mirrored).all(1)
    assert (same ^ turned).all()
    assert 150 < turned.sum() < 250


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flip", [False, True])
def test_values_stay_in_range(dtype, flip):
    strong = {"rotation": 180, "zoom": 0.5, "shift": 0.3, "flip": flip}
    white = torch.ones(50, 9 * 9 * 2, dtype=dtype)
    drawn = augmented(white, (9, 9, 2), **strong)
    assert drawn.dtype == dtype
    assert drawn.min() == 0  # some border came in
    assert drawn.max() == 1
    signed = augmented(white * -2, (9, 9, 2), **strong)
    assert signed.min() == -2
    assert signed.max() == 0


def blob(height=41, width=41):
    """A wide, low blob, right of the centre: place, size and direction can be measured."""
    down, right = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    return torch.exp(-(right**2) / 32 - down**2 / 8), right, down


def moments(rows, right, down):
    """Centre, covariance and mass of every image."""
    weight = rows / rows.sum(1, keepdim=True)
    position = torch.stack([right.flatten(), down.flatten()], 1)
    centre = weight @ position
    away = position - centre.unsqueeze(1)
    return centre, torch.einsum("np,npi,npj->nij", weight, away, away), rows.sum(1)


def angles(covariance):
    """Direction of the long axis of every image, in radians."""
    return 0.5 * torch.atan2(2 * covariance[:, 0, 1], covariance[:, 0, 0] - covariance[:, 1, 1])


def test_rotation_is_in_degrees_to_either_side():
    x, right, down = blob()
    drawn = augmented(x.flatten().expand(300, -1), (41, 41), **{**OFF, "rotation": 30})
    centre, covariance, _ = moments(drawn, right, down)
    assert centre.abs().max() < 0.01
    angle = torch.rad2deg(angles(covariance))
    assert -30.2 < angle.min() < -27
    assert 27 < angle.max() < 30.2
    assert angle.mean().abs() < 3


def test_shift_is_a_share_of_width_and_height():
    x, right, down = blob(41, 81)
    drawn = augmented(x.flatten().expand(300, -1), (41, 81), **{**OFF, "shift": 0.2})
    centre, _, _ = moments(drawn, right, down)
    for axis, size in enumerate([81, 41]):
        assert -0.201 * size < centre[:, axis].min() < -0.19 * size
        assert 0.19 * size < centre[:, axis].max() < 0.201 * size


def test_zoom_is_a_factor_of_both_axes():
    x, right, down = blob()
    drawn = augmented(x.flatten().expand(300, -1), (41, 41), **{**OFF, "zoom": 0.3})
    _, covariance, mass = moments(drawn, right, down)
    factor = (mass / x.sum()).sqrt()
    assert 0.69 < factor.min() < 0.73
    assert 1.27 < factor.max() < 1.31
    ratio = covariance[:, 0, 0] / covariance[:, 1, 1]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 4), atol=0.5, rtol=0)


def test_one_change_leaves_the_others_as_they_are():
    x, right, down = blob()
    x = x.flatten().expand(100, -1)
    both, turned, scaled = (
        moments(augmented(x, (41, 41), **{**OFF, **kwargs}), right, down)
        for kwargs in ({"rotation": 40, "zoom": 0.3}, {"rotation": 40}, {"zoom": 0.3})
    )
    torch.testing.assert_close(both[2], scaled[2], atol=0, rtol=0.03)
    torch.testing.assert_close(angles(both[1]), angles(turned[1]), atol=0.02, rtol=0)


def test_no_images():
    assert augmented(torch.zeros(0, 16), (4, 4)).shape == (0, 16)


@pytest.mark.parametrize(
    "bad", [{"rotation": -1}, {"shift": math.nan}, {"zoom": math.inf}, {"rotation": "5"}]
)
def test_amounts_below_0(bad):
    with pytest.raises(
        ValueError, match=f"`{next(iter(bad))}` is .*must be a number of at least 0"
    ):
        ImageAugment((4, 4), **bad)


def test_zoom_of_1():
    with pytest.raises(ValueError, match="`zoom` is 1; it is a share and must be less than 1"):
        ImageAugment((4, 4), zoom=1)


def test_digits_stay_digits(data_dir):
    path = data_dir / "mnist.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in SCMOE_DATA_DIR")
    with np.load(path) as file:
        digits = file[next(k for k in file.files if file[k].ndim >= 2)][:64]
    x = torch.from_numpy(digits.reshape(64, -1).astype(np.float32) / 255)
    drawn = augmented(x, (28, 28))
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert not torch.allclose(drawn, x)
    # ink moves but is hardly lost: zoom by at most 10 % changes it by at most 21 %
    share = drawn.sum(1) / x.sum(1)
    assert share.min() > 0.75
    assert share.max() < 1.25


def test_rows_of_another_length():
    with pytest.raises(ValueError, match=r"rows of 16 values, got an array of shape \(4, 20\)"):
        augmented(images(4, 20), (4, 4))


# ----------------------------------------------------------------------------------------
# for a training loop


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_shape": (784,)}, r"\(784,\); it must be \(height, width\) or"),
        ({"rotation": -1}, "`rotation` is -1"),
        ({"zoom": 1}, "`zoom` is 1"),
    ],
)
def test_image_augment_tells_at_once(bad, message):
    with pytest.raises(ValueError, match=message):
        ImageAugment(**{"image_shape": (4, 4), **bad})


def two_types():
    """Two types of 30 cells, far apart; each cell's neighbours are 5 others of its type."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator) * 0.1
    x[30:] += 10
    away = torch.cdist(x, x).fill_diagonal_(math.inf)
    return x, away.topk(5, largest=False).indices


def test_a_cell_stays_on_the_way_to_a_neighbor():
    x, neighbors = two_types()
    index = torch.randint(60, (200,), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    moved = NeighborAugment(x, neighbors, share=0.5)(x[index], index)
    step = (moved - x[index]).unsqueeze(1)
    way = x[neighbors[index]] - x[index].unsqueeze(1)
    share = (step * way).sum(2) / way.square().sum(2)
    on = torch.isclose(step, share.unsqueeze(2) * way, atol=1e-5).all(2)
    assert on.any(1).all()
    assert len(set(on.int().argmax(1).tolist())) == 5  # every neighbour is drawn
    share = share[on]
    assert share.min() >= -1e-4
    assert share.max() <= 0.5 + 1e-4
    assert 0.2 < share.mean() < 0.3
    assert share.std() > 0.1  # each cell draws its own
    # the type is kept
    assert ((moved.mean(1) > 5) == (index >= 30)).all()


def test_a_cell_can_go_all_the_way(monkeypatch):
    x, neighbors = two_types()
    monkeypatch.setattr(torch, "rand", lambda *size: torch.ones(size))
    index = torch.tensor([3, 40])
    moved = NeighborAugment(x, neighbors[:, :1], share=1.0)(x[index], index)
    torch.testing.assert_close(moved, x[neighbors[index, 0]])


def test_no_share_is_the_identity_and_the_seed_decides():
    x, neighbors = two_types()
    index = torch.arange(60)
    assert torch.equal(NeighborAugment(x, neighbors, share=0)(x, index), x)
    augment = NeighborAugment(x, neighbors)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(x, index))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


def test_cells_of_another_precision_keep_it():
    x, neighbors = two_types()
    batch = x[:7].double()
    assert NeighborAugment(x, neighbors.int())(batch, torch.arange(7)).dtype == torch.float64
    assert NeighborAugment(x, neighbors)(x[:0], torch.arange(0)).shape == (0, 4)


@pytest.mark.parametrize(
    ("neighbors", "share", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), 1.5, r"`share` is 1.5; it must be from 0 to 1"),
        (torch.zeros(3, 2, dtype=torch.int64), math.nan, "`share` is nan"),
        (torch.zeros(3, 2, dtype=torch.int64), "0.5", "`share` is '0.5'; it must be"),
        (torch.zeros(2, 2, dtype=torch.int64), 0.5, r"each of the 3 cells .* \(2, 2\)"),
        (torch.zeros(3, dtype=torch.int64), 0.5, r"its shape is \(3,\)"),
        (torch.zeros(3, 0, dtype=torch.int64), 0.5, "at least one column"),
        (torch.zeros(3, 2), 0.5, "whole numbers; they are torch.float32"),
        (torch.tensor([[0], [3], [1]]), 0.5, "from 0 to 2; they range from 0 to 3"),
        (torch.tensor([[0], [-1], [1]]), 0.5, "they range from -1 to 1"),
    ],
)
def test_neighbors_that_do_not_fit(neighbors, share, message):
    with pytest.raises(ValueError, match=message):
        NeighborAugment(torch.zeros(3, 4), neighbors, share=share)


# ----------------------------------------------------------------------------------------
# counts and hidden features


def counts(n=400, d=50):
    rate = torch.tensor([0.2, 1.0, 30.0, 400.0, 5.0]).repeat(d // 5)
    return torch.poisson(rate.expand(n, d), generator=torch.manual_seed(0))


@pytest.mark.parametrize("logged", [False, True])
def test_thinned_counts_are_whole_and_no_more_than_before(logged):
    x = counts()
    torch.manual_seed(1)
    thinned = ThinAugment(share=0.5, logged=logged)(x.log1p() if logged else x, None)
    thinned = thinned.expm1() if logged else thinned
    whole = thinned.round()
    torch.testing.assert_close(thinned, whole, rtol=1e-5, atol=1e-4)
    assert (whole >= 0).all()
    assert (whole <= x).all()
    assert (whole[x == 0] == 0).all()
    kept = whole.sum(1) / x.sum(1)
    # each cell loses a share of its own, evenly from none to half
    assert kept.min() > 0.48
    assert kept.max() > 0.97
    assert kept.mean() == pytest.approx(0.75, abs=0.03)
    assert kept.std() == pytest.approx(0.5 / math.sqrt(12), abs=0.03)


def test_each_count_of_a_cell_is_binomial(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size))
    thinned = ThinAugment(share=0.3)(torch.full((2000, 20), 10.0), None)
    assert thinned.mean() == pytest.approx(7, abs=0.05)
    assert thinned.var() == pytest.approx(10 * 0.7 * 0.3, abs=0.1)


def test_expected_counts_stay_right_on_average():
    x = torch.full((4000, 10), 2.3)
    thinned = ThinAugment(share=0)(x, None)
    assert set(thinned.unique().tolist()) == {2, 3}
    assert thinned.mean() == pytest.approx(2.3, abs=0.02)


def test_no_share_leaves_counts_as_they_are():
    x = counts()
    assert torch.equal(ThinAugment(share=0)(x, None), x)
    torch.testing.assert_close(ThinAugment(share=0, logged=True)(x.log1p(), None), x.log1p())
    assert ThinAugment()(x[:0], None).shape == (0, 50)


def test_hidden_genes_are_0_at_their_rate():
    x = torch.rand(500, 40) + 1
    torch.manual_seed(0)
    dropped = DropoutAugment(rate=0.2)(x, torch.arange(500))
    hidden = dropped == 0
    assert torch.equal(dropped[~hidden], x[~hidden])
    assert hidden.float().mean() == pytest.approx(0.2, abs=0.01)
    # of each cell others, and of each gene
    assert 0.05 < hidden.float().mean(1).std() < 0.08
    assert hidden.float().mean(0).std() < 0.04
    assert torch.equal(DropoutAugment(rate=0)(x, None), x)


def test_hidden_markers_are_those_of_neighbors():
    x, neighbors = two_types()
    index = torch.randint(60, (3000,), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    before = x[index].clone()
    dropped = DropoutAugment(x, neighbors, rate=0.3)(x[index], index)
    assert torch.equal(x[index], before)
    changed = dropped != x[index]
    assert changed.float().mean() == pytest.approx(0.3, abs=0.01)
    # every hidden value is that marker of one of the cell's own neighbours
    of_neighbors = (x[neighbors[index]] == dropped.unsqueeze(1)) & changed.unsqueeze(1)
    assert (of_neighbors.any(1) == changed).all()
    # each marker asks a neighbour of its own
    asked = of_neighbors.int().argmax(1)
    both = changed[:, 0] & changed[:, 1]
    assert (asked[both, 0] == asked[both, 1]).float().mean() < 0.4
    assert set(asked[changed].tolist()) == set(range(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ThinAugment(logged=True),
        DropoutAugment,
        lambda: DropoutAugment(*two_types(), rate=0.5),
    ],
)
def test_the_seed_decides_and_the_precision_is_kept(make):
    x, index = two_types()[0].abs(), torch.arange(60)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(make()(x, index))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert make()(x.double(), index).dtype == torch.float64


def test_changes_follow_each_other():
    x, index = torch.rand(5, 3), torch.arange(5)
    both = Augments([lambda x, i: x + i[:, None], lambda x, i: 2 * x])
    torch.testing.assert_close(both(x, index), 2 * (x + index[:, None]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ThinAugment(share=1.1), "`share` is 1.1; it must be from 0 to 1"),
        (lambda: DropoutAugment(rate=-0.1), "`rate` is -0.1; it must be from 0 to 1"),
        (lambda: DropoutAugment(rate=True), "`rate` is True"),
        (lambda: DropoutAugment(torch.zeros(3, 2), torch.zeros(2, 1)), "each of the 3 cells"),
    ],
)
def test_amounts_that_are_none(make, match):
    with pytest.raises(ValueError, match=match):
        make()
