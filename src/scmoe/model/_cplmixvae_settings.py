"""Which settings of the coupled mixture make sense."""

from __future__ import annotations

import math
from typing import Any

from scmoe._numbers import is_number, is_whole
from scmoe._scaling import SCALINGS
from scmoe.model._auto import check_number
from scmoe.model._cplmixvae_module import DISTANCES
from scmoe.model._described import COUNTS

CHOICES = {
    "activation": ("elu", "relu"),
    "likelihood": ("gaussian", "bernoulli", *COUNTS),
    "scaling": SCALINGS,
    "distance": DISTANCES,
}

WHOLE = {"n_arms": 1, "n_state": 1, "n_embed": 1, "n_hidden": 1, "n_layers": 0}
WEIGHTS = ("coupling_weight", "entropy_weight", "kl_weight")
SHARES = ("input_dropout", "state_dropout")
POSITIVE = ("temperature", "sharpness")


def check_coupled_settings(given: dict[str, Any], *, counts: bool) -> None:
    """Raise ValueError for words that are not among the choices, and numbers out of range.

    Parameters
    ----------
    given
        The arguments of the model.
    counts
        Whether the cells were registered as counts.
    """
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            raise ValueError(f"`{name}` must be one of {choices}, got {given[name]!r}.")
    check_number("n_categories", given["n_categories"], 2)
    if given["min_cells"] is not None:
        _check("min_cells", given["min_cells"], is_whole(given["min_cells"]), 0)
    for name, least in WHOLE.items():
        _check(name, given[name], is_whole(given[name]), least)
    for name in WEIGHTS:
        _check(name, given[name], is_number(given[name]), 0)
    for name in SHARES:
        if not (is_number(given[name]) and 0 <= given[name] < 1):
            raise ValueError(f"`{name}` must be from 0 to below 1, got {given[name]!r}.")
    for name in POSITIVE:
        value = given[name]
        if value is None and name == "sharpness":
            continue
        if not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"`{name}` must be a number above 0, got {value!r}.")
    if not isinstance(given["hard"], bool):
        raise ValueError(f"`hard` must be True or False, got {given['hard']!r}.")
    of_counts = given["likelihood"] in COUNTS
    if of_counts and not counts:
        raise ValueError(
            f"`likelihood={given['likelihood']!r}` is one of counts: register raw counts, "
            "`setup_anndata(adata, counts=True)`."
        )
    if counts and not of_counts:
        raise ValueError(
            f"The cells are registered as counts, which a {given['likelihood']!r} likelihood "
            f"cannot give: use one of {COUNTS}, or transformed values without `counts`."
        )
    if counts and given["scaling"] != "none":
        raise ValueError(
            f"Counts are looked at by their logarithms; `scaling={given['scaling']!r}` can't be "
            "used with them."
        )


def _check(name: str, value: Any, fits: bool, least: int) -> None:
    if not fits or not least <= value < math.inf:
        raise ValueError(f"`{name}` must be a number of at least {least}, got {value!r}.")
