"""``python -m benchmarks cytof|cost|page``: run, write the results, make the page."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"
VERSIONS = ["scmoe", "torch", "scvi-tools", "scanpy", "scikit-network"]


def _merged(new: list[dict]) -> list[dict]:
    """A run of some methods or data sets replaces those in the results and leaves the others."""
    path = RESULTS / "cytof.json"
    old = json.loads(path.read_text())["records"] if path.exists() else []

    def key(record: dict) -> tuple:
        return record["dataset"], record["method"], record["seed"]

    found = {key(record): record for record in [*old, *new]}
    from benchmarks import cytof

    order = [list(cytof.DATASETS), list(cytof.METHODS)]
    return sorted(
        found.values(),
        key=lambda r: (order[0].index(r["dataset"]), order[1].index(r["method"]), r["seed"]),
    )


def _save(name: str, records: list | dict, **extra) -> None:
    RESULTS.mkdir(exist_ok=True)
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}",
        "versions": {package: version(package) for package in VERSIONS},
        **extra,
        "records": records,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=["cytof", "cost"], help="cytof, cost, page; default: all"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", help="default: all")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--dry", action="store_true", help="print the results, write nothing")
    args = parser.parse_args()
    for name in ("scmoe", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def say(line: str) -> None:
        print(line, flush=True)

    if "cytof" in args.what:
        from benchmarks import cytof

        records = cytof.run(
            args.datasets or list(cytof.DATASETS),
            args.methods or list(cytof.METHODS),
            list(range(args.seeds)),
            say,
        )
        if not args.dry:
            _save("cytof", _merged(records), min_population=cytof.MIN_POPULATION)
    if "cost" in args.what:
        from benchmarks import cost

        records = cost.run(say)
        if not args.dry:
            _save("cost", records)
    if not args.dry:
        from benchmarks import page

        page.write(RESULTS, PAGE)
        say(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
