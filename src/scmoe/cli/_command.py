"""The options of the command line."""

from __future__ import annotations

import os
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from scmoe._core.keys import Key

from ._console import Console
from ._settings import (
    COFACTORS,
    COUPLED,
    MIXTURE,
    MODELS,
    PRESETS,
    SIMILAR,
    SIMILARITIES,
    Settings,
)

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 96}


@click.group(context_settings=_CONTEXT)
@click.version_option(version("scmoe"), message="%(prog)s %(version)s")
def main() -> None:
    """Clusters of single cells by a mixture-of-experts similarity VAE."""


class _Names(click.ParamType):
    """Names with commas between them, or a file with a name in each line."""

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
            self.fail(f"{value!r} names nothing.", param, ctx)
        return names


class _Number(click.IntRange):
    """A whole number, or a word such as "auto" for one that is found."""

    def __init__(self, min: int, word: str = "auto") -> None:  # noqa: A002
        super().__init__(min=min)
        self.word = word
        self.name = f"number or {word}"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        return value if value == self.word else super().convert(value, param, ctx)


_MARKERS = click.option(
    "--markers",
    type=_Names(),
    help="Markers to cluster by: a,b,c or a file with one in each line.  [default: all; of FCS "
    'those that "scmoe channels" shows]',
)
_EXCLUDE = click.option("--exclude", type=_Names(), default=(), help="Markers not to cluster by.")
_JOIN = click.option(
    "--join",
    type=click.Choice(["inner", "exact", "outer"]),
    default="inner",
    show_default=True,
    help="Files with different markers: keep the shared ones, refuse, or keep all.",
)

_BY = click.option(
    "--by",
    type=click.Choice(["marker", "channel"]),
    default="marker",
    show_default=True,
    help="What makes channels of two FCS files the same: the marker ($PnS), or the channel "
    "($PnN) where files call its marker differently.",
)
_DATASET = click.option(
    "--dataset",
    type=_Number(0, "all"),
    default=0,
    show_default=True,
    metavar="N|all",
    help="Which data set to read from FCS files that hold several, counted from 0; all for "
    "each as a sample.",
)
_OFFSETS = click.option(
    "--offsets",
    type=click.Choice(["auto", "header", "text"]),
    default="auto",
    show_default=True,
    help="What to believe if HEADER and TEXT of an FCS file name two places for its events and "
    "both could be right.",
)


class _Recorded(click.Command):
    """A command that keeps the words it was called with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = shlex.join(["scmoe", "cluster", *args])
        return super().parse_args(ctx, args)


@main.command(cls=_Recorded, short_help="Cluster the cells of FCS or h5ad files.")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, resolve_path=True),
    metavar="FOLDER",
    help="Folder to write. It must be new or empty, unless --overwrite.",
)
@click.option("--overwrite", is_flag=True, help="Replace a folder that an earlier run wrote.")
@click.option(
    "--model",
    type=click.Choice(list(MODELS)),
    default=SIMILAR,
    show_default=True,
    help="Clusters that follow a similarity of cells, or those of the markers alone: a mixture "
    "of VAEs, or coupled ones that must agree.",
)
@click.option(
    "--n-clusters",
    type=_Number(min=2),
    metavar="N|auto",
    help="Most clusters there can be; surplus ones end without cells. auto for as many as are "
    "found.  [default: as many as the tree has populations, and some to spare; 25 without a "
    f"tree, or what the preset says; auto with {MIXTURE} and {COUPLED}]",
)
@click.option(
    "--n-latent",
    type=_Number(min=1),
    metavar="N|auto",
    help="Dimensions of the codes; auto for as many as are needed.  [default: 9, or what the "
    f"preset says; auto with {MIXTURE}, 2 of the states with {COUPLED}]",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="Settings of an experiment of the paper, to compare with.",
)
@click.option(
    "--similarity",
    type=click.Choice(SIMILARITIES),
    help="Which cells are alike: those that no valley of the density parts (tree); by partitions "
    "of the neighbour graph (coassociation), its edges (graph), neighbours (knn) or distance "
    "(threshold) on a UMAP.  [default: tree, or what the preset says; coassociation for h5ad "
    "with a graph of a representation, such as principal components]",
)
@_MARKERS
@_EXCLUDE
@click.option(
    "--transform/--no-transform",
    default=None,
    help="Whether to transform by arcsinh.  [default: FCS is transformed; h5ad is taken as it "
    "is, unless it came from FCS and has no record of a transform]",
)
@click.option(
    "--cofactor",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Of arcsinh(x / cofactor).  "
    f"[default: {COFACTORS['mass']:g} for mass, {COFACTORS['fluor']:g} for fluorescence]",
)
@click.option(
    "--compensate/--no-compensate",
    default=False,
    help="Undo spillover by the matrix of each file.  [default: no-compensate]",
)
@click.option(
    "--spillover",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Compensate by this matrix instead; its first line names the channels.",
)
@_JOIN
@_BY
@_DATASET
@_OFFSETS
@click.option(
    "--cells",
    type=click.Choice(["auto", "h5ad", "zarr"]),
    default="auto",
    show_default=True,
    help="Where the cells of FCS files go: cells.h5ad, read into memory; or cells.zarr, file by "
    "file. auto for the second where they do not fit into memory.",
)
@click.option("--strict", is_flag=True, help="Refuse FCS files that need a repair.")
@click.option("--layer", metavar="NAME", help="Layer of h5ad to use instead of X.")
@click.option(
    "--batch-key",
    metavar="COLUMN",
    help='Column of .obs with batches whose differences are no biology, such as "sample".',
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    metavar="N",
    help="The same seed gives the same clusters.  [default: 0]",
)
@click.option(
    "--key",
    default=Key.DEFAULT,
    show_default=True,
    metavar="NAME",
    help="Name of the clustering in the results.",
)
@click.option(
    "--max-epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passes over the cells, of each training.  [default: as many as make 200 steps "
    "after a start from a tree or from a graph, else 2,500; "
    f"800 with {MIXTURE}, 600 or 3,000 with {COUPLED}]",
)
@click.option(
    "--no-landmarks",
    "landmarks",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Keep no cells in the model: it can't reject new cells then.",
)
@click.option("--no-map", "map", is_flag=True, flag_value=False, default=True, help="No map.")
@click.option(
    "--no-fcs",
    "fcs",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Do not write FCS files with the clusters.",
)
@click.option("-q", "--quiet", is_flag=True, help="Tell warnings and errors only.")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_obj
def cluster(command: str, *, debug: bool, quiet: bool, **options: Any) -> None:
    """Cluster the cells of FILES and write a folder with the results.

    FILES are FCS files, folders with FCS files or patterns such as "plate/*.fcs"; or one or
    several .h5ad files.

    \b
    The folder holds
      report.html   what was found, to read in a browser
      clusters.csv  name, size, share and median of each marker, by cluster
      abundance.csv cells and share of each cluster in each sample
      cells.h5ad    all cells, for scanpy; cells.zarr where they do not fit into memory
      fcs/          the FCS files with the cluster of each event
      model/        the trained model
      run.json      what was run, and the files that it wrote
    No other run can write to it meanwhile. Each file appears when it is whole, the cells first.
    """  # noqa: D301
    settings = _checked(Settings(quiet=quiet, command=command, **options))
    console = Console(quiet=quiet, debug=debug)
    with console.guard():
        from ._folder import output_folder

        with output_folder(
            settings.output, overwrite=settings.overwrite, settings=settings.of_results()
        ) as output:
            console.saved = output.saved
            # what is heavy is loaded here: --help is quick, and a folder in use is refused at once
            from ._run import run

            run(settings, console, output)
    if not quiet:
        # names of files are bytes, of any kind
        click.echo(os.fsencode(settings.output / "report.html"))


def _check_files(files: tuple[str, ...]) -> None:
    h5ad = [file.lower().endswith(".h5ad") for file in files]
    if any(h5ad) and not all(h5ad):
        raise click.UsageError("FILES are FCS or h5ad, not both.")


def _checked(settings: Settings) -> Settings:
    """Refuse options that cannot go together."""
    _check_files(settings.files)
    if settings.cofactor is not None and settings.transform is False:
        raise click.UsageError("--cofactor is of the transform that --no-transform leaves out.")
    if not settings.from_h5ad and settings.layer is not None:
        raise click.UsageError("--layer is for h5ad; FCS files have no layers.")
    if settings.from_h5ad:
        for option in ("strict", "by", "dataset", "offsets", "cells"):
            if getattr(settings, option) != getattr(Settings, option):
                raise click.UsageError(f"--{option} is for FCS.")
    if settings.model != SIMILAR:
        for option in ("preset", "similarity", "batch_key"):
            if getattr(settings, option):
                name = option.replace("_", "-")
                raise click.UsageError(f"--{name} can't go with --model {settings.model}.")
    if settings.model == COUPLED and settings.n_latent == "auto":
        raise click.UsageError(
            f"--n-latent auto can't go with --model {COUPLED}: nothing estimates the size of "
            "its states; give a number."
        )
    if not settings.key or "/" in settings.key:
        raise click.UsageError(f"--key is a name without '/', not {settings.key!r}.")
    return settings


@main.command(short_help="Show which channels would be used, and why.")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@_MARKERS
@_EXCLUDE
@_JOIN
@_BY
@_DATASET
@_OFFSETS
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def channels(*, debug: bool, files: tuple[str, ...], **options: Any) -> None:
    """Print the channels of FILES, and which of them `scmoe cluster` would cluster by.

    FILES and options are those of `scmoe cluster`. No values are read.
    """
    _check_files(files)
    with Console(quiet=False, debug=debug).guard():
        from ._channels import table_of

        lines = table_of(files, **options)
    click.echo("\n".join(lines))
