"""Run experiments, write their results, make the page: ``python -m benchmarks NAME ...|page``."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from pathlib import Path

from benchmarks import EXPERIMENTS, page
from benchmarks.experiment import Options, execute

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(EXPERIMENTS)}, or page alone; default: all experiments",
    )
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ...; default: the experiment's")
    parser.add_argument("--datasets", nargs="+", help="default: all")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument(
        "--size",
        choices=["small", "full"],
        default="small",
        help="small: minutes on a CPU (default); full: the papers' sizes, hours for images",
    )
    parser.add_argument("--dry", action="store_true", help="print the results, write nothing")
    args = parser.parse_args(arguments)
    names = args.names or list(EXPERIMENTS)
    if unknown := set(names) - {*EXPERIMENTS, "page"}:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    if args.seeds is not None and args.seeds < 1:
        parser.error("--seeds must be at least 1")
    for name in ("scmoe", "scvi", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def say(line: str) -> None:
        print(line, flush=True)

    for name in names:
        if name != "page":
            module = importlib.import_module(f"benchmarks.{name}")
            seeds = module.SEEDS if args.seeds is None else args.seeds
            options = Options(list(range(seeds)), args.datasets, args.methods, args.size)
            execute(module, options, say, None if args.dry else RESULTS / f"{name}.json")
    if not args.dry:
        page.write(RESULTS, PAGE)
        say(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
