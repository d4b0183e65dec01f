"""Hyper-parameters: each is declared once, and checked wherever a value comes from."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest

from scmoe.model import MODELS, ModelFileError, MoESimVAE, MoEVAE


@pytest.fixture(params=sorted(MODELS))
def settings_class(request):
    return MODELS[request.param]._module_cls.settings_class


def fields_of(settings_class, kind):
    return [f.name for f in settings_class.arguments() if type(f.default) is kind]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (int, ["64", 64.5, True, -1, math.inf]),
        (float, ["0.5", True, -0.5, math.inf, math.nan]),
        (bool, ["yes", 1, None]),
        (str, ["unheard-of", -3, None, b"elu"]),
    ],
)
def test_a_wrong_value_is_named(settings_class, kind, wrong):
    for name in fields_of(settings_class, kind):
        accepted = settings_class.argument_kinds()[name]
        for value in wrong:
            if accepted.fits(value):
                assert value is None, (name, value)
                continue
            with pytest.raises(ValueError, match=f"`{name}` must be"):
                settings_class(**{name: value})


def test_numbers_of_numpy_are_taken(settings_class):
    for kind in (int, float):
        for name in fields_of(settings_class, kind):
            value = getattr(settings_class(), name)
            found = getattr(settings_class(**{name: np.array([value])[0]}), name)
            assert type(found) is kind
            assert found == value


def test_settings_of_networks_come_back(settings_class):
    # numbers that a training has found
    built = {"n_experts": 4, "n_categories": 4, "n_latents": (2, 3), "likelihood": "gaussian"}
    known = {name: v for name, v in built.items() if name in settings_class.__dataclass_fields__}
    settings = settings_class(n_input=7, min_cells=3, **known)
    again = settings_class.from_networks(settings.to_networks(), "here", min_cells=3)
    assert again.to_networks() == settings.to_networks()
    assert again.min_cells == 3
    changed = {**settings.to_networks(), "n_input": 10**10}
    with pytest.raises(ModelFileError, match="`n_input` is 10000000000, and at most"):
        settings_class.from_networks(changed, "here")
    assert replace(settings, n_input=8) != settings


def test_help_shows_what_the_constructor_takes():
    shown, own = inspect.signature(MoESimVAE), inspect.signature(MoESimVAE.__init__)
    assert list(own.parameters) == ["self", *shown.parameters]
    assert shown.parameters["n_latent"].default == 9
    assert shown.parameters["n_experts"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert shown.parameters["n_latent"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "{settings}" not in MoESimVAE.__doc__


def test_arrays_are_taken(blobs):
    MoEVAE.setup_anndata(blobs)
    assert MoEVAE(blobs, 3, n_latent=np.array([2, 3, 4])).settings.n_latent == (2, 3, 4)
    MoESimVAE.setup_anndata(blobs)
    model = MoESimVAE(blobs, np.int64(3), encoder_channels=[64, 128, 128, 64, 8])
    assert type(model.settings.n_experts) is int
    # what is the default is not shown
    assert model._model_summary_string.startswith(
        "MoESimVAE(n_experts=3), similarity DensityTree("
    )


def test_unknown_settings(blobs):
    with pytest.raises(TypeError, match=r"MoESimVAE: .*n_expert"):
        MoESimVAE(blobs, n_expert=3)
    with pytest.raises(ValueError, match="`n_hidden` must be"):
        MoESimVAE(blobs, n_hidden="64")
    assert "_scvi_uuid" not in blobs.uns
