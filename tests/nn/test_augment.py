"""Affine changes of images against numpy's turning, shifting and flipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe.nn import affine_images, augment_images

IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def images(n, *shape, seed=0):
    return torch.rand(n, math.prod(shape), generator=torch.manual_seed(seed), dtype=torch.float64)


def with_numpy(x, shape, change):
    """The rows of ``x`` after ``change`` of their arrays (n, height, width, ...)."""
    return torch.from_numpy(change(x.numpy().reshape(-1, *shape)).reshape(len(x), -1).copy())


def affine(right, down, a=1.0, b=0.0, c=0.0, d=1.0):
    return torch.tensor([[a, b, right], [c, d, down]], dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)])
def test_the_identity_changes_nothing(shape):
    x = images(3, *shape)
    torch.testing.assert_close(affine_images(x, shape, IDENTITY), x)
    torch.testing.assert_close(affine_images(x, shape, IDENTITY.expand(3, 2, 3)), x)


@pytest.mark.parametrize("shape", [(7, 7), (6, 6, 3)])
def test_a_quarter_turn(shape):
    # what is drawn at the right comes from the top: the image turns clockwise
    x = images(3, *shape)
    drawn = affine_images(x, shape, affine(0, 0, 0.0, 1.0, -1.0, 0.0))
    expected = with_numpy(x, shape, lambda a: np.rot90(a, -1, axes=(1, 2)))
    torch.testing.assert_close(drawn, expected)


def test_a_quarter_turn_of_an_oblong_image_does_not_distort_it():
    x = torch.zeros(1, 4, 8, dtype=torch.float64)
    x[0, 1:3, 2:6] = 1  # a bar of 2 x 4 in the middle
    drawn = affine_images(x.flatten(1), (4, 8), affine(0, 0, 0.0, 1.0, -1.0, 0.0))
    expected = torch.zeros(4, 8, dtype=torch.float64)
    expected[:, 3:5] = 1
    torch.testing.assert_close(drawn.view(4, 8), expected)


def test_a_shift_is_in_pixels_and_filled_with_0():
    x = images(2, 5, 8, 2)

    def moved(a):
        out = np.zeros_like(a)
        out[:, 1:, :-3] = a[:, :-1, 3:]
        return out

    drawn = affine_images(x, (5, 8, 2), affine(3, -1))
    torch.testing.assert_close(drawn, with_numpy(x, (5, 8, 2), moved))


def test_each_image_has_its_own_matrix():
    x = images(2, 4, 6)
    mirror = affine(0, 0, a=-1.0)
    drawn = affine_images(x, (4, 6), torch.stack([IDENTITY, mirror]))
    torch.testing.assert_close(drawn[0], x[0])
    torch.testing.assert_close(drawn[1], x[1].view(4, 6).flip(1).flatten())


def test_half_a_pixel_is_the_mean_of_two():
    x = torch.tensor([[0.0, 1.0, 0.5, 0.25]])
    drawn = affine_images(x, (1, 4), affine(0.5, 0).float())
    torch.testing.assert_close(drawn, torch.tensor([[0.5, 0.75, 0.375, 0.125]]))


@pytest.mark.parametrize("shape", [(2, 2), (3, 2, 3), (6,)])
def test_matrix_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"`matrix` must have the shape \(2, 3\) or \(4, 2, 3\)"):
        affine_images(images(4, 4, 4), (4, 4), torch.zeros(shape))


@pytest.mark.parametrize("change", [affine_images, augment_images])
def test_rows_of_another_length(change):
    args = [IDENTITY] if change is affine_images else []
    with pytest.raises(ValueError, match=r"rows of 16 values, got an array of shape \(4, 20\)"):
        change(images(4, 20), (4, 4), *args)


# ----------------------------------------------------------------------------------------
# at random

OFF = {"rotation": 0, "zoom": 0, "shift": 0}


def augmented(x, shape, seed=0, **kwargs):
    return augment_images(x, shape, torch.Generator().manual_seed(seed), **kwargs)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)])
def test_nothing_to_do_changes_nothing(shape):
    x = images(3, *shape)
    torch.testing.assert_close(augmented(x, shape, **OFF), x)


def test_a_generator_decides_and_the_global_state_is_left():
    x = images(5, 8, 8)
    before = torch.get_rng_state()
    first, again, other = (augmented(x, (8, 8), seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    own = augment_images(x, (8, 8))
    torch.manual_seed(3)
    torch.testing.assert_close(own, augment_images(x, (8, 8)), rtol=0, atol=0)


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
    strong = {"rotation": 180, "zoom": 0.5, "shift": 0.3, "shear": 0.5, "flip": flip}
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


def test_shear_slants():
    x, right, down = blob()
    drawn = augmented(x.flatten().expand(300, -1), (41, 41), **OFF, shear=0.5)
    _, covariance, mass = moments(drawn, right, down)
    slant = covariance[:, 0, 1] / covariance[:, 1, 1]
    assert -0.51 < slant.min() < -0.45
    assert 0.45 < slant.max() < 0.51
    torch.testing.assert_close(mass, x.sum().expand(300), atol=0.1, rtol=0)


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


@pytest.mark.parametrize("bad", [{"rotation": -1}, {"shift": math.nan}, {"shear": math.inf}])
def test_amounts_below_0(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` is .*must be 0 or more"):
        augment_images(images(1, 4, 4), (4, 4), **bad)


def test_zoom_of_1():
    with pytest.raises(ValueError, match="`zoom` is 1; it is a share and must be less than 1"):
        augment_images(images(1, 4, 4), (4, 4), zoom=1)


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
