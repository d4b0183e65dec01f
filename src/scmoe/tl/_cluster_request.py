"""The request of ``scmoe.tl.cluster``: its options, with the values that each accepts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scmoe._core.cells import check_adata, check_batches, check_copy
from scmoe._core.keys import Key
from scmoe._core.settings import (
    NOTHING,
    TEXT,
    Kind,
    check_fields,
    many,
    setting,
    whole,
)
from scmoe._core.workers import check_client
from scmoe.similarity import Similarity, check_similarity
from scmoe.tl._results import check_key

if TYPE_CHECKING:
    from anndata import AnnData

ModelName = Literal["moe-sim-vae", "moe-vae", "cpl-mixvae"]

AUTO = "auto"
"""The value of a number that is estimated."""

AUTO_WORD = Kind(f'"{AUTO}"', lambda v: isinstance(v, str) and v == AUTO)

MAPPING = Kind("a mapping", lambda v: isinstance(v, Mapping))

RESERVED = {
    "n_experts": "n_clusters",
    "n_categories": "n_clusters",
    "n_latent": "n_latent",
    "n_state": "n_latent",
}
"""Arguments of the models that are options of a request, under another name."""

OF_A_CALL = ("random_state", "key_added", "copy", "progress")
"""Options that differ between repeats of a clustering."""

ANY = Kind("anything", lambda v: True)
"""Values of an option that has a check of its own."""


RECORDED = {"recorded": True}
"""Notes of an option that the record of a clustering keeps."""

REPEATED = {"recorded": True, "repeated": True}
"""Notes of an option that is also read from the record when the clustering is repeated.

The other options are not: a record may come from anywhere, and must not name a folder to write to
or a function to call.
"""


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """All options of :func:`scmoe.tl.cluster`, which documents them."""

    model: ModelName = setting(None, "moe-sim-vae", **REPEATED)
    n_clusters: int | str | None = setting(AUTO_WORD | whole(2) | NOTHING, None, **REPEATED)
    n_latent: int | Sequence[int] | str | None = setting(
        AUTO_WORD | whole(1) | many(whole(1)) | NOTHING, None, **REPEATED
    )
    layer: str | None = setting(TEXT | NOTHING, None, **REPEATED)
    use_rep: str | None = setting(TEXT | NOTHING, None, **REPEATED)
    preset: str | None = setting(TEXT | NOTHING, None, **RECORDED)
    similarity: Similarity | None = setting(ANY, None, **RECORDED)
    neighbors_key: str | None = setting(TEXT | NOTHING, None, **REPEATED)
    obsp: str | None = setting(TEXT | NOTHING, None, **REPEATED)
    batch_key: str | None = setting(TEXT | NOTHING, None, **REPEATED)
    random_state: int = setting(whole(0), 0, **RECORDED)
    model_kwargs: dict[str, Any] = setting(MAPPING | NOTHING, None, **RECORDED)
    train_kwargs: dict[str, Any] = setting(MAPPING | NOTHING, None, **RECORDED)
    markers: Sequence[str] | None = setting(ANY, None)
    landmarks: bool = setting(None, True)
    key_added: str = setting(ANY, Key.DEFAULT)
    copy: bool = setting(None, False)
    progress: bool = setting(None, True)
    save_model: str | Path | None = setting(ANY, None)
    client: Any = setting(ANY, None)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> ClusterRequest:
        """Make a request of options by name; TypeError for a name that there is not."""
        known = {f.name for f in fields(cls)}
        if unknown := [name for name in options if name not in known]:
            raise TypeError(
                f"`scmoe.tl.cluster` got an unexpected keyword argument {unknown[0]!r}."
            )
        return cls(**options)

    def check(self, adata: AnnData) -> None:
        """Check all options that can be checked before the values are read.

        Raises
        ------
        ValueError
            An option out of range, options that exclude each other, slots that are taken, a
            folder that exists or can't be written to; a view, cells or markers with names that
            are not unique.
        KeyError
            An unknown column of batches.
        TypeError
            A client that is not a ``distributed.Client``.
        """
        check_fields(self)
        check_client(self.client)
        check_adata(adata, in_memory=False)
        check_key(adata, self.key_added)
        check_copy(adata, self.copy, "adata")
        if self.save_model is not None:
            self._check_folder()
        for argument, ours in RESERVED.items():
            given = ours == "n_clusters" or getattr(self, ours) is not None
            if given and argument in (self.model_kwargs or {}):
                raise ValueError(f"Give `{argument}` as `{ours}`, not in `model_kwargs`.")
        if self.similarity is not None:
            check_similarity(self.similarity)
        if self.batch_key is not None:
            check_batches(adata, self.batch_key)

    def _check_folder(self) -> None:
        """Raise ValueError if the folder of the model exists or can't be written."""
        if os.path.exists(self.save_model):
            raise ValueError(f"`save_model`: {str(self.save_model)!r} exists; name a new folder.")
        parent = os.path.abspath(self.save_model)
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
            raise ValueError(f"`save_model`: {parent!r} is no folder that can be written to.")
        if self.representation is not None:
            raise ValueError("`save_model` can't go with `use_rep`: new cells have no such slot.")

    @property
    def representation(self) -> str | None:
        """Representation to cluster; None for markers."""
        return None if self.use_rep == "X" else self.use_rep

    @property
    def least_clusters(self) -> int:
        """Number of clusters that the cells must suffice for."""
        return 2 if self.n_clusters in (AUTO, None) else self.n_clusters

    def given(self) -> dict[str, Any]:
        """Return the options that were given and that repeats of a clustering share."""
        found = {}
        for f in fields(self):
            value = getattr(self, f.name)
            default = None if "recorded" in f.metadata else f.default
            if f.name not in OF_A_CALL and value is not None and value is not default:
                found[f.name] = value
        return found

    def to_record(self) -> dict[str, Any]:
        """Return the options that the record of a clustering keeps."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if "recorded" in f.metadata}
        if self.similarity is not None:
            options["similarity"] = self.similarity.to_dict()
        return options
