"""What a training is of: enough to tell whether a checkpoint belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

if TYPE_CHECKING:
    from scvi.model.base import BaseModelClass

SEEDS = 2**32
"""Seeds that people set are below; torch seeds itself with 53 bits."""

VERSIONS = ("scmoe", "scvi-tools", "lightning", "torch", "numpy")
"""Libraries of which another version may compute other bits."""

IGNORED = ("enable_progress_bar", "simple_progress_bar", "progress_bar_refresh_rate")
"""Arguments of the trainer that change no result."""


def fingerprint(
    model: BaseModelClass, similarity: Any, settings: Mapping[str, Any], seed: int
) -> dict[str, str]:
    """What must be the same for a training to go on from a checkpoint, by its name.

    Parameters
    ----------
    model
        The model, before the training.
    similarity
        What the training looks at beside the registered cells; only a hash of it is kept.
    settings
        Arguments of the model and of the training, which are kept as text.
    seed
        What the training draws its random numbers from.
    """
    found = {f"version of {name}": version(name) for name in VERSIONS}
    found["model"] = type(model).__name__
    manager = model.adata_manager
    found["cells"] = digest({key: manager.get_from_registry(key) for key in manager.data_registry})
    found["markers"] = digest(list(model.adata.var_names))
    found["similarity"] = digest(similarity)
    found |= {name: readable(v) for name, v in settings.items() if name not in IGNORED}
    # without a seed, weights and random numbers are those of the checkpoint
    seeded = torch.initial_seed() < SEEDS
    found["seed"] = str(torch.initial_seed()) if seeded else "none"
    if seeded:
        found["random numbers drawn before"] = str(seed)
    if seeded or model.is_trained_:
        found["initial weights"] = digest(dict(model.module.state_dict()))
    return found


def readable(value: Any) -> str:
    """A setting as text that is the same in the next process."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {readable(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(readable, value)) + "]"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def digest(value: Any) -> str:
    """SHA-256 of all that a value consists of: arrays, graphs, tables, containers, objects."""
    state = hashlib.sha256()
    for part in _parts(value):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def _parts(value: Any) -> Iterable[bytes]:
    """The bytes of a value, piece by piece."""
    yield type(value).__qualname__.encode()
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        yield repr(value).encode()
    elif isinstance(value, torch.Tensor):
        yield from _parts(value.numpy(force=True))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif sparse.issparse(value):
        compressed = value.tocsr()
        yield from _parts([compressed.indptr, compressed.indices, compressed.data, value.shape])
    elif isinstance(value, pd.DataFrame):
        yield from _parts([value.index, list(value.columns)])
        yield from _parts([value[name] for name in value.columns])
    elif isinstance(value, pd.Series):
        yield from _parts([value.index, value.to_numpy()])
    elif isinstance(value, Mapping):
        yield from _parts([part for pair in value.items() for part in pair])
    elif isinstance(value, list | tuple | np.ndarray | pd.Index):
        for item in value:
            yield from _parts(item)
    elif hasattr(value, "__qualname__"):
        # a function or a class
        yield f"{value.__module__}:{value.__qualname__}".encode()
    else:
        yield from _parts(getattr(value, "__dict__", {}))
