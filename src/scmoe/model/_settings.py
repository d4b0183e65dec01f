"""Hyper-parameters of a model: declared once, checked once, and stored whole in its file."""

from __future__ import annotations

import inspect
import math
import textwrap
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_type_hints

import numpy as np

from scmoe._core.files import ModelFileError
from scmoe._core.settings import (
    NOTHING,
    Kind,
    check_fields,
    is_whole,
    kinds_of,
    many,
    setting,
    shown,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

AUTO = "auto"
"""The value of a number that is estimated."""

MOST = 10**9
"""Largest size that is read from a file ..."""

MOST_LAYERS = 1000
"""... and largest number of layers, each of which is an object of its own."""

MODEL, CELLS = "of the model", "of the cells"
"""Roles of a setting: an argument that networks do not see; what cells or training decide."""

Activation = Literal["elu", "relu"]
Network = Literal["dense", "conv"]
Scaling = Literal["quantile", "minmax", "common", "none"]

AS_LAYERS = whole(1) | NOTHING
IMAGE_SHAPE = many(whole(1)) | NOTHING


def or_auto(kind: Kind) -> Kind:
    """Return the values of a kind, and ``"auto"``."""
    return Kind(
        f'"{AUTO}" or {kind.words}', lambda v: (isinstance(v, str) and v == AUTO) or kind.fits(v)
    )


def estimated(kind: Kind, default: Any, doc: str, *, known_later: bool = False) -> Any:
    """Declare a number that may be ``"auto"``, or None until the model is trained."""
    given = or_auto(kind)
    return setting(given | NOTHING if known_later else given, default, doc, built=kind)


def of_cells(kind: Kind | None, default: Any) -> Any:
    """Declare a setting that the cells or the training decide."""
    return setting(kind, default, role=CELLS)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Hyper-parameters of a model, with the sizes that follow from its cells.

    A subclass declares the fields of one model; each is an argument of the model, with its
    default, its range and its documentation, unless it is :func:`of_cells`.

    Raises
    ------
    ValueError
        A word that is not among the choices, a number out of range.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"isotropic"})
    """Fields that earlier versions did not save."""

    n_input: int = of_cells(whole(1), 1)
    scaling: Scaling | None = setting(
        default=None,
        role=MODEL,
        doc="""
        How markers are scaled to the range 0 to 1: by their 0.1 and 99.9 % ``"quantile"``, by
        ``"minmax"``, by one ``"common"`` range, which keeps the spreads of principal components,
        or ``"none"``, for values that are in this range already. None for ``"none"`` with images
        and counts, and ``"quantile"`` otherwise.
        """,
    )
    min_cells: int | None = setting(
        whole(0) | NOTHING,
        None,
        role=MODEL,
        doc="""
        Experts that own fewer cells after training are retired: their cells go to the expert
        that is next in probability. A gate leaves such splinters where populations touch. None
        for 10, or for the cells that there are for each expert if those are fewer.
        """,
    )

    def __post_init__(self):
        for f in fields(self):
            object.__setattr__(self, f.name, _plain(getattr(self, f.name)))
        check_fields(self)

    @classmethod
    def arguments(cls) -> list[Field]:
        """Return the fields that are arguments: those of this model before those of all."""
        common = {f.name for f in fields(ModelSettings)}
        given = [f for f in fields(cls) if f.metadata.get("role") != CELLS]
        return sorted(given, key=lambda f: f.name in common)

    @classmethod
    def argument_kinds(cls) -> dict[str, Kind]:
        """Return the values that each argument of the model accepts."""
        return {f.name: kinds_of(cls)[f.name] for f in cls.arguments()}

    @classmethod
    def _of_networks(cls) -> dict[str, Kind]:
        """Return the settings of the networks, with the values that built networks have."""
        return {
            f.name: f.metadata.get("built") or kinds_of(cls)[f.name]
            for f in fields(cls)
            if f.metadata.get("role") != MODEL
        }

    def to_networks(self) -> dict[str, Any]:
        """Return the settings of the networks by name, as a file of the model holds them."""
        return {name: value for name, value in asdict(self).items() if name in self._of_networks()}

    @classmethod
    def from_networks(cls, saved: Any, where: str, **of_model: Any) -> Self:
        """Rebuild settings from those of :meth:`to_networks`, which may come from anywhere.

        Parameters
        ----------
        saved
            The settings of the networks.
        where
            The place of the settings, as "The settings in ...".
        **of_model
            Settings that networks do not see.

        Raises
        ------
        ModelFileError
            Settings are missing, of wrong types or out of range, or contradict each other.
        """
        kinds = cls._of_networks()
        of_networks = f"{where} ('module_settings_' of a model)"
        if not isinstance(saved, dict):
            raise ModelFileError(f"{of_networks} are of the wrong type: they are no mapping.")
        missing, extra = kinds.keys() - saved.keys() - cls.LATER, saved.keys() - kinds.keys()
        if missing or extra:
            raise ModelFileError(
                f"{of_networks} are of the wrong type: they lack {sorted(missing)} and have the "
                f"unknown {sorted(map(str, extra))}."
            )
        check_sizes(saved, where)
        try:
            for name, value in saved.items():
                kinds[name].check(name, value)
            found = cls(**saved, **of_model)
        except ValueError as error:
            raise ModelFileError(f"{where} are damaged: {error}") from error
        shape = saved.get("image_shape")
        if shape is not None and math.prod(shape) != saved["n_input"]:
            raise ModelFileError(
                f"{where} are damaged: images of {list(shape)} pixels have not {saved['n_input']}."
            )
        return found


def _plain(value: Any) -> Any:
    """Return numbers of numpy as those of Python, and sequences as tuples."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def check_sizes(saved: Mapping[str, Any], where: str) -> None:
    """Raise ModelFileError for sizes so large that nobody can have meant them."""
    for name, value in saved.items():
        most = MOST_LAYERS if name.endswith("_layers") else MOST
        for size in value if isinstance(value, list | tuple | np.ndarray) else [value]:
            if is_whole(size) and size > most:
                raise ModelFileError(
                    f"{where} are damaged: `{name}` is {shown(size)}, and at most {most:,} is "
                    "read."
                )


def with_settings(model_class: type) -> type:
    """Give a model class the signature and the documentation of its settings.

    The first setting may be given by position, as in ``MoESimVAE(adata, 10)``. In the docstring
    ``{settings}`` stands for the documentation.
    """
    settings_class = model_class._module_cls.settings_class
    hints = get_type_hints(settings_class)
    kind = inspect.Parameter
    parameters = [kind("adata", kind.POSITIONAL_OR_KEYWORD)]
    told = []
    for place, f in enumerate(settings_class.arguments()):
        how = kind.KEYWORD_ONLY if place else kind.POSITIONAL_OR_KEYWORD
        default = kind.empty if f.default is MISSING else f.default
        annotation = hints[f.name]
        parameters.append(kind(f.name, how, default=default, annotation=annotation))
        doc = textwrap.indent(textwrap.dedent(f.metadata["doc"]).strip(), 8 * " ")
        told.append(f"{f.name}\n{doc}")
    model_class.__signature__ = inspect.Signature(parameters)
    # what shows the constructor itself, as Sphinx does
    own = inspect.Parameter("self", kind.POSITIONAL_OR_KEYWORD)
    model_class.__init__.__signature__ = inspect.Signature([own, *parameters])
    given = {p.name: p.annotation for p in parameters if p.annotation is not kind.empty}
    model_class.__init__.__annotations__ = {**model_class.__init__.__annotations__, **given}
    told = "\n    ".join(told)
    model_class.__doc__ = model_class.__doc__.replace("{settings}", told)
    return model_class
