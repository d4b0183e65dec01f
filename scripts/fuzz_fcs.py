"""Read many valid, broken and mutated FCS files, and check every result.

    python scripts/fuzz_fcs.py --files 1000000 --seed 0 --out fuzz

An answer is right if it is a refusal (``FCSReadError``) or the numbers that an independent
reader by the letter of the standard finds in the same bytes. Anything else is a failure: the
file is kept in ``OUT/failures``, and the exit status is 1. ``OUT/result.json`` is renewed as
the run goes on. Every file follows from the seed and its number: ``--one NUMBER`` makes it
again and shows the answer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "io"))

import fcs_judge
from fcs_reference import readings

CHUNK = 500
HANG = 30
"""Seconds after which a read is given up."""
MORE_MEMORY = 2 << 30
"""Bytes of address space that reading may take above what the process has at the start."""
MEMORY_EVERY = 100
"""One file in so many is read under tracemalloc."""
MEMORY_CONSTANT, MEMORY_FACTOR = 2 << 20, 32
"""Most memory that a read may take: this many bytes, and this many times the file."""
KEPT = 20
"""Failing files kept of a kind."""
LARGEST_REAL = 30_000
"""Bytes; the judge is slow on large files."""


class HangError(BaseException):
    """A read that does not end; no ``except Exception`` may catch it."""


@dataclass
class Tally:
    """The results of a number of files."""

    verdicts: Counter = field(default_factory=Counter)
    mutations: Counter = field(default_factory=Counter)
    """Verdicts that are not plainly right, by mutation."""
    failures: list[dict] = field(default_factory=list)
    slowest: float = 0.0
    memory_share: float = 0.0
    """Of the memory that a read may take, the most that one took."""
    memory_peak: int = 0
    reading: float = 0.0
    """CPU seconds within the reader."""

    def add(self, other: Tally) -> None:
        """Add another tally."""
        self.verdicts += other.verdicts
        self.mutations += other.mutations
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.memory_share = max(self.memory_share, other.memory_share)
        self.memory_peak = max(self.memory_peak, other.memory_peak)
        self.reading += other.reading


def real_files() -> list[bytes]:
    """Return the small public files, if available."""
    folder = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere")) / "fcs"
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    return [path.read_bytes() for path in files if path.stat().st_size <= LARGEST_REAL]


def make(seed: int, number: int, seeds: list[bytes]) -> fcs_judge.Case:
    """Return file ``number`` of a run."""
    return fcs_judge.case(Random(seed << 40 | number), seeds)


def read(case: fcs_judge.Case, path: Path, tally: Tally, *, memory: bool) -> fcs_judge.Verdict:
    """Check the result, the time and optionally the memory of a file."""
    signal.alarm(HANG)
    try:
        if memory:
            tracemalloc.start()
        verdict = fcs_judge.verdict(case, path)
    except HangError:
        verdict = fcs_judge.Verdict("slow", f"more than {HANG} s", HANG)
    finally:
        signal.alarm(0)
        peak = tracemalloc.get_traced_memory()[1] if memory else 0
        tracemalloc.stop()
    if memory:
        size = len(case.blob)
        tally.memory_peak = max(tally.memory_peak, peak)
        allowed = MEMORY_CONSTANT + MEMORY_FACTOR * size
        tally.memory_share = max(tally.memory_share, peak / allowed)
        if peak > allowed:
            verdict = fcs_judge.Verdict("memory", f"{peak} bytes for a file of {size}")
    return verdict


def run_chunk(job: tuple[int, int, int, list[bytes]]) -> Tally:
    """Check the files ``first`` to ``last`` (excluded)."""
    seed, first, last, seeds = job
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder) / "file.fcs"
        for number in range(first, last):
            case = make(seed, number, seeds)
            memory = number % MEMORY_EVERY == 0
            verdict = read(case, path, tally, memory=memory)
            tally.verdicts[verdict.kind] += 1
            tally.reading += verdict.seconds
            if not memory:
                tally.slowest = max(tally.slowest, verdict.seconds)
            if verdict.kind in (*fcs_judge.FAILURES, "memory"):
                tally.mutations[f"{verdict.kind}: {case.kind.partition('+')[0]}"] += 1
                told = {"kind": verdict.kind, "mutation": case.kind, "detail": verdict.detail}
                tally.failures.append({"number": number, **told, "blob": case.blob})
            elif verdict.kind == "refused though valid":
                tally.mutations[f"{verdict.kind}: {case.kind.partition('+')[0]}"] += 1
    return tally


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def prepare() -> None:
    """Limit the memory and the time of this process."""
    signal.signal(signal.SIGALRM, _hang)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, resource.RLIM_INFINITY))


def _hang(*_) -> None:
    raise HangError


def keep(failures: list[dict], folder: Path, kept: Counter) -> None:
    """Save failing files, up to a number of each kind."""
    for failure in failures:
        kind = failure["kind"], failure["mutation"].partition("+")[0]
        kept[kind] += 1
        if kept[kind] > KEPT:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{failure['kind'].replace(' ', '-')}-{failure['number']}"
        (folder / f"{name}.fcs").write_bytes(failure["blob"])
        (folder / f"{name}.txt").write_text(f"{failure['mutation']}\n{failure['detail']}\n")


def result(args: argparse.Namespace, tally: Tally, seconds: float) -> dict:
    """Return the summary."""
    files = tally.verdicts.total()
    kinds = ("read", "repaired", "refused", "refused though valid", *fcs_judge.FAILURES, "memory")
    return {
        "files": files,
        "seed": args.seed,
        "first": args.first,
        "failures": len(tally.failures),
        **{kind: tally.verdicts[kind] for kind in kinds},
        "slowest_ms": round(1000 * tally.slowest, 2),
        "mean_read_ms": round(1000 * tally.reading / max(files, 1), 4),
        "peak_memory_kB": tally.memory_peak // 1024,
        "memory_share": round(tally.memory_share, 3),
        "seconds": round(seconds, 1),
        "files_per_second": round(files / seconds, 1),
        "by_mutation": dict(tally.mutations.most_common()),
    }


def write(path: Path, told: dict) -> None:
    """Write the summary atomically."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1) + "\n")
    os.replace(part, path)


def run(args: argparse.Namespace) -> int:
    """Check all files."""
    seeds = real_files()
    last = args.first + args.files
    jobs = [
        (args.seed, first, min(first + CHUNK, last), seeds)
        for first in range(args.first, last, CHUNK)
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    total, kept, start = Tally(), Counter(), time.monotonic()
    pool = None
    if args.processes > 1:
        pool = multiprocessing.get_context("spawn").Pool(args.processes, prepare)
    else:
        prepare()
    try:
        tallies = pool.imap_unordered(run_chunk, jobs) if pool else map(run_chunk, jobs)
        with tqdm(total=args.files, unit=" files", mininterval=1) as bar:
            for i, tally in enumerate(tallies):
                keep(tally.failures, args.out / "failures", kept)
                for failure in tally.failures:
                    del failure["blob"]
                total.add(tally)
                bar.update(tally.verdicts.total())
                bar.set_postfix(failures=len(total.failures))
                if i % 20 == 0:
                    write(args.out / "result.json", result(args, total, time.monotonic() - start))
    finally:
        if pool:
            pool.terminate()
    told = result(args, total, time.monotonic() - start)
    write(args.out / "result.json", told)
    print(json.dumps(told, indent=1))
    return int(bool(total.failures))


def show(args: argparse.Namespace) -> int:
    """Make one file again and print all about it."""
    prepare()
    case = make(args.seed, args.one, real_files())
    tally = Tally()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.one}.fcs"
    verdict = read(case, path, tally, memory=False)
    print(f"{path}: {case.kind}, data set {case.dataset}, expected: {case.expect}")
    print(case.blob[:3000])
    for way in readings(case.blob, case.dataset):
        print(f"reference: {way}")
    if case.specimen is not None:
        print(f"made with: {case.specimen.names} {case.specimen.values}")
    print(f"{verdict.kind}: {verdict.detail}")
    return int(verdict.kind in fcs_judge.FAILURES)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="how many (default: 10,000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to go on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="folder for the results")
    parser.add_argument("--one", type=int, metavar="NUMBER", help="show this file only")
    args = parser.parse_args(argv)
    return run(args) if args.one is None else show(args)


if __name__ == "__main__":
    sys.exit(main())
