"""Saved models of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scmoe._core.files import ModelFileError
from scmoe._core.text import listing
from scmoe.model._cplmixvae import CplMixVAE
from scmoe.model._loaded import saved_class
from scmoe.model._moesimvae import MoESimVAE
from scmoe.model._moevae import MoEVAE

if TYPE_CHECKING:
    import os

    from scmoe.model._record import Trained

MODELS = {model.__name__: model for model in (MoESimVAE, MoEVAE, CplMixVAE)}
"""Models by the names of their classes."""


def read_trained(dir_path: str | os.PathLike) -> tuple[Trained, dict[str, Any]]:
    """The trained part of a saved model, and the registry of its cells.

    Raises
    ------
    ModelFileError
        As :meth:`MoESimVAE.load`.
    """
    name = saved_class(Path(dir_path))
    if name not in MODELS:
        raise ModelFileError(
            f"{str(dir_path)!r} holds a model of the class {name!r}; known are "
            f"{listing(list(MODELS))}."
        )
    return MODELS[name].read_trained(dir_path)
