"""The commands ``scmoe cluster`` and ``scmoe channels``."""

from __future__ import annotations

import os
import shlex
from importlib.metadata import version
from typing import Any

import click

from ._console import Console
from ._settings import Settings, check_files, options

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 96}

_FILES = click.argument("files", nargs=-1, required=True, metavar="FILES...")
_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@click.group(context_settings=_CONTEXT)
@click.version_option(version("scmoe"), message="%(prog)s %(version)s")
def main() -> None:
    """Cluster single cells with a mixture-of-experts similarity VAE."""


class _Recorded(click.Command):
    """A command that keeps its command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = shlex.join(["scmoe", "cluster", *args])
        return super().parse_args(ctx, args)


@main.command(cls=_Recorded, short_help="Cluster the cells of FCS or h5ad files.")
@_FILES
@options()
@_DEBUG
@click.pass_obj
def cluster(command: str, *, debug: bool, **given: Any) -> None:
    """Cluster the cells of FILES and write a folder with the results.

    FILES are FCS files, folders with FCS files or patterns such as "plate/*.fcs"; or one or
    several .h5ad files.

    \b
    The folder has
      report.html   the results, to read in a browser
      clusters.csv  name, size, share and median of each marker, by cluster
      abundance.csv cells and share of each cluster in each sample
      cells.h5ad    all cells, for scanpy; cells.zarr where they do not fit into memory
      fcs/          the FCS files with the cluster of each event
      model/        the trained model
      run.json      the settings of the run, and the files that it wrote
    The run locks the folder. A file appears when it is complete, the cells first.
    """  # noqa: D301
    settings = Settings(command=command, **given)
    settings.check()
    console = Console(quiet=settings.quiet, debug=debug)
    with console.guard():
        from ._output import output_folder

        with output_folder(
            settings.output, overwrite=settings.overwrite, settings=settings.of_results()
        ) as output:
            console.saved = output.saved
            # heavy imports wait: --help is fast, and a folder in use is refused at once
            from ._run import run

            run(settings, console, output)
    if not settings.quiet:
        # names of files are bytes of any kind
        click.echo(os.fsencode(settings.output / "report.html"))


@main.command(short_help="Show which channels would be used, and why.")
@_FILES
@options("markers", "exclude", "join", "by", "dataset", "offsets")
@_DEBUG
def channels(*, debug: bool, files: tuple[str, ...], **given: Any) -> None:
    """Print the channels of FILES, and which of them `scmoe cluster` would cluster by.

    FILES and options are those of `scmoe cluster`. No values are read.
    """
    check_files(files)
    with Console(quiet=False, debug=debug).guard():
        from ._channels import channel_table

        lines = channel_table(files, **given)
    click.echo("\n".join(lines))
