"""The settings of a run: each one with its option of the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from scmoe._core.keys import Key

SIMILARITIES = ("tree", "coassociation", "graph", "knn", "threshold")
"""Similarities of ``scmoe.similarity`` that need only the cells."""

SIMILAR, MIXTURE, COUPLED = "moe-sim-vae", "moe-vae", "cpl-mixvae"

MODELS = {SIMILAR: "MoESimVAE", MIXTURE: "MoEVAE", COUPLED: "CplMixVAE"}
"""Classes of ``scmoe.model``, by their words on the command line."""

PRESETS = ("cytof", "synthetic")
"""Presets of ``scmoe.model.preset`` that need only the cells."""

COFACTORS = {"mass": 5.0, "fluor": 150.0}
"""Usual cofactors of arcsinh, by the kind of channel."""

_NOT_RESULTS = ("output", "overwrite", "cells", "quiet", "command")
"""Settings that change no result."""


class _Names(click.ParamType):
    """Names separated by commas, or a file with one name in each line."""

    name = "NAMES|FILE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            return value
        # names may be longer than a path can be
        if os.path.isfile(value):
            try:
                parts = Path(value).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                self.fail(f"{value!r} cannot be read as text: {error}", param, ctx)
        elif os.path.exists(value) and not os.path.isdir(value):
            # a pipe may never end
            self.fail(f"{value!r} is no regular file.", param, ctx)
        else:
            parts = value.split(",")
        names = tuple(part.strip() for part in parts if part.strip())
        if not names:
            self.fail(f"{value!r} has no names.", param, ctx)
        return names


class _Number(click.IntRange):
    """A whole number, or a word such as "auto" for an estimated one."""

    def __init__(self, min: int, word: str = "auto") -> None:  # noqa: A002
        super().__init__(min=min)
        self.word = word
        self.name = f"number or {word}"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        return value if value == self.word else super().convert(value, param, ctx)


def _option(*names: str, default: Any = MISSING, **parameters: Any) -> Any:
    """Return a field of the settings with its option; an option without a default is required."""
    metadata = {"names": names, "parameters": parameters}
    return field(default=default, metadata=metadata)


def _choice(name: str, *words: str, **parameters: Any) -> Any:
    """Return a field with an option that is one of few words, by default the first."""
    return _option(
        name, default=words[0], type=click.Choice(words), show_default=True, **parameters
    )


def _flag(*names: str, default: bool = False, **parameters: Any) -> Any:
    """Return a field with an option without a value, which turns the default around."""
    return _option(*names, default=default, is_flag=True, flag_value=not default, **parameters)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of ``scmoe cluster``, in the order of ``--help``."""

    files: tuple[str, ...]
    output: Path = _option(  # noqa: RUF009
        *("-o", "--output"),
        type=click.Path(path_type=Path, resolve_path=True),
        metavar="FOLDER",
        help="Folder to write. It must be new or empty, unless --overwrite is given.",
    )
    overwrite: bool = _flag("--overwrite", help="Replace the results of an earlier run.")
    model: str = _choice(
        "--model",
        *MODELS,
        help="Cluster by a similarity of cells, or by the markers alone: with a mixture of VAEs, "
        "or with coupled VAEs that must agree.",
    )
    n_clusters: int | str | None = _option(
        "--n-clusters",
        default=None,
        type=_Number(min=2),
        metavar="N|auto",
        help="Largest number of clusters; clusters may stay empty. auto estimates it.  [default: "
        "the number of populations of the tree and some more; 25 without a tree, or that of the "
        f"preset; auto with {MIXTURE} and {COUPLED}]",
    )
    n_latent: int | str | None = _option(
        "--n-latent",
        default=None,
        type=_Number(min=1),
        metavar="N|auto",
        help="Number of latent dimensions; auto estimates it.  [default: 9, or that of the "
        f"preset; auto with {MIXTURE}, 2 dimensions of the states with {COUPLED}]",
    )
    preset: str | None = _option(
        "--preset",
        default=None,
        type=click.Choice(PRESETS),
        help="Settings of an experiment of the paper, for comparison.",
    )
    similarity: str | None = _option(
        "--similarity",
        default=None,
        type=click.Choice(SIMILARITIES),
        help="Which cells are similar: cells that no valley of the density separates (tree); by "
        "partitions of the neighbour graph (coassociation), by its edges (graph), by neighbours "
        "(knn) or distance (threshold) on a UMAP.  [default: tree, or that of the preset; "
        "coassociation for h5ad with a graph of a representation, such as principal components]",
    )
    markers: tuple[str, ...] | None = _option(
        "--markers",
        default=None,
        type=_Names(),
        help="Markers to cluster by: a,b,c or a file with one in each line.  [default: all; of "
        'FCS files those that "scmoe channels" shows]',
    )
    exclude: tuple[str, ...] = _option(
        "--exclude", default=(), type=_Names(), help="Markers not to cluster by."
    )
    transform: bool | None = _option(
        "--transform/--no-transform",
        default=None,
        help="Whether to transform by arcsinh.  [default: FCS is transformed; h5ad is not, unless "
        "it came from FCS and has no record of a transform]",
    )
    cofactor: float | None = _option(
        "--cofactor",
        default=None,
        type=click.FloatRange(min=0, min_open=True),
        metavar="X",
        help="Cofactor of arcsinh(x / cofactor).  "
        f"[default: {COFACTORS['mass']:g} for mass, {COFACTORS['fluor']:g} for fluorescence]",
    )
    compensate: bool = _option(
        "--compensate/--no-compensate",
        default=False,
        help="Compensate spillover with the matrix of each file.  [default: no-compensate]",
    )
    spillover: Path | None = _option(  # noqa: RUF009
        "--spillover",
        default=None,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="CSV",
        help="Compensate with this matrix instead; its first line names the channels.",
    )
    join: str = _choice(
        *("--join", "inner", "exact", "outer"),
        help="Files with different markers: keep the shared markers, refuse, or keep all.",
    )
    by: str = _choice(
        *("--by", "marker", "channel"),
        help="Match the channels of FCS files by marker ($PnS), or by channel ($PnN) where files "
        "name its marker differently.",
    )
    dataset: int | str = _option(
        "--dataset",
        default=0,
        type=_Number(0, "all"),
        show_default=True,
        metavar="N|all",
        help="Which data set to read from FCS files with several, counted from 0; all reads each "
        "as a sample.",
    )
    offsets: str = _choice(
        *("--offsets", "auto", "header", "text"),
        help="Which offsets to trust where HEADER and TEXT of an FCS file disagree about the "
        "place of its events and both could be right.",
    )
    cells: str = _choice(
        *("--cells", "auto", "h5ad", "zarr"),
        help="Where the cells of FCS files go: into cells.h5ad, through memory; or into "
        "cells.zarr, file by file. auto chooses zarr where they do not fit into memory.",
    )
    strict: bool = _flag("--strict", help="Refuse FCS files that need a repair.")
    layer: str | None = _option(
        "--layer", default=None, metavar="NAME", help="Layer of h5ad to use instead of X."
    )
    batch_key: str | None = _option(
        "--batch-key",
        default=None,
        metavar="COLUMN",
        help="Column of .obs with batches whose technical differences are removed, such as "
        '"sample".',
    )
    seed: int = _option(
        "--seed",
        default=0,
        type=click.IntRange(0, 2**32 - 1),
        metavar="N",
        help="The same seed gives the same clusters.  [default: 0]",
    )
    key: str = _option(
        "--key",
        default=Key.DEFAULT,
        show_default=True,
        metavar="NAME",
        help="Name of the clustering in the results.",
    )
    max_epochs: int | None = _option(
        "--max-epochs",
        default=None,
        type=click.IntRange(min=1),
        metavar="N",
        help="Epochs of each training.  [default: as many as make 200 steps after a start from a "
        f"tree or from a graph, else 2,500; 800 with {MIXTURE}, 600 or 3,000 with {COUPLED}]",
    )
    landmarks: bool = _flag(
        "--no-landmarks",
        default=True,
        help="Keep no cells in the model, which then cannot reject new cells.",
    )
    map: bool = _flag("--no-map", default=True, help="Draw no map.")
    fcs: bool = _flag("--no-fcs", default=True, help="Write no FCS files with the clusters.")
    quiet: bool = _flag("-q", "--quiet", help="Print only warnings and errors.")
    command: str = ""
    """The command line of the run."""

    @property
    def from_h5ad(self) -> bool:
        """Whether the input is h5ad; otherwise it is FCS."""
        return self.files[0].lower().endswith(".h5ad")

    @property
    def least_clusters(self) -> int:
        """Smallest number of cells that the number of clusters asks for."""
        return self.n_clusters if isinstance(self.n_clusters, int) else 2

    @property
    def compensates(self) -> bool:
        """Whether to compensate spillover; a given matrix implies it."""
        return self.compensate or self.spillover is not None

    def of_results(self) -> dict[str, Any]:
        """Return the settings that decide the results, as JSON has them.

        A run replaces the unfinished results of a run with the same ones.
        """
        told = {name: value for name, value in asdict(self).items() if name not in _NOT_RESULTS}
        return json.loads(json.dumps(told, default=str))

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        check_files(self.files)
        if self.cofactor is not None and self.transform is False:
            raise click.UsageError("--cofactor excludes --no-transform.")
        if not self.from_h5ad and self.layer is not None:
            raise click.UsageError("--layer is for h5ad; FCS files have no layers.")
        if self.from_h5ad:
            for name in ("strict", "by", "dataset", "offsets", "cells"):
                if getattr(self, name) != getattr(Settings, name):
                    raise click.UsageError(f"--{name} is for FCS.")
        if self.model != SIMILAR:
            for name in ("preset", "similarity", "batch_key"):
                if getattr(self, name):
                    option = name.replace("_", "-")
                    raise click.UsageError(f"--{option} can't go with --model {self.model}.")
        if self.model == COUPLED and self.n_latent == "auto":
            raise click.UsageError(
                f"--n-latent auto can't go with --model {COUPLED}: nothing estimates the size of "
                "its states; give a number."
            )
        if not self.key or "/" in self.key:
            raise click.UsageError(f"--key is a name without '/', not {self.key!r}.")


def check_files(files: tuple[str, ...]) -> None:
    """Raise UsageError for a mixture of FCS and h5ad files."""
    h5ad = [file.lower().endswith(".h5ad") for file in files]
    if any(h5ad) and not all(h5ad):
        raise click.UsageError("FILES are FCS or h5ad, not both.")


def options(*names: str) -> Callable[[Callable], Callable]:
    """Return a decorator that adds options of settings to a command, by default of all."""

    def decorate(command: Callable) -> Callable:
        for setting in reversed(fields(Settings)):
            if setting.metadata and (not names or setting.name in names):
                default = {"required": True}
                if setting.default is not MISSING:
                    default = {"default": setting.default}
                command = click.option(
                    *setting.metadata["names"],
                    setting.name,
                    **default,
                    **setting.metadata["parameters"],
                )(command)
        return command

    return decorate
