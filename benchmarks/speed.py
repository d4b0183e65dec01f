"""Speed: seconds of a clustering and of its peers, in turn in one process.

Made-up cells in 20 populations, the rarest with 0.05 % of them. The methods take turns, so that a
slow moment of a shared machine hits all alike; the first round, in which things are compiled and
read from the disk, does not count. The *limit* is one pass of the bare networks over all cells:
what assigning costs if nothing else cost anything.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch

import scmoe
from benchmarks import peers
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured
from scmoe.nn import MLP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("work", "method")
SEEDS = 3
SETTINGS: dict = {}

N_POPULATIONS = 20
RAREST = 5e-4

OURS, ASSIGN, LIMIT = "scmoe", "scmoe, tl.assign", "limit"
PEERS: dict[str, tuple[Callable, int]] = {
    "FlowSOM": (peers.flowsom, 1_000_000),
    "Leiden on scanpy's neighbours": (peers.leiden, 25_000),
    "PhenoGraph": (peers.phenograph, 25_000),
    "CytoVI, Leiden of its codes": (peers.cytovi, 25_000),
}
"""How each peer clusters, and the largest number of cells that it is asked to."""

SIZES = {
    "small": ((25_000, 8),),
    "full": ((25_000, 8), (450_000, 8), (1_000_000, 40)),
}
FROM_DISK = (1_000_000, 10_000_000)
"""Cells, with 40 markers, that are read from zarr and never in memory as a whole."""
CHUNK = 500_000

FRESH = "a fresh process, 25,000 x 8"
IMPORT = "import scmoe.tl"


def mixture(n_cells: int, n_markers: int, seed: int) -> np.ndarray:
    """Return cells of populations that differ in some markers, ``(n_cells, n_markers)``."""
    populations = np.random.default_rng(0)
    share = np.geomspace(1, RAREST * N_POPULATIONS, N_POPULATIONS)
    levels = 3.0 * (populations.random((N_POPULATIONS, n_markers)) < 0.4)
    rng = np.random.default_rng(seed)
    which = rng.choice(N_POPULATIONS, n_cells, p=share / share.sum())
    x = rng.standard_normal((n_cells, n_markers), dtype=np.float32)
    x *= 0.5
    x += levels.astype(np.float32)[which]
    return x


def cluster(x: np.ndarray, seed: int) -> ad.AnnData:
    """Cluster by ``tl.cluster`` with every default."""
    cells = ad.AnnData(x)
    scmoe.tl.cluster(cells, random_state=seed, progress=False)
    return cells


@torch.inference_mode()
def bare_pass(x: np.ndarray) -> None:
    """Run one pass of an encoder and a gate of the size of those of scmoe, in chunks."""
    encoder = MLP(x.shape[1], 64, 9, n_layers=2)
    gate = MLP(9, 64, N_POPULATIONS, n_layers=1)
    for start in range(0, len(x), 50_000):
        gate(encoder(torch.from_numpy(x[start : start + 50_000]))).argmax(1)


def alternating(n_cells: int, n_markers: int, options: Options, say: Callable) -> Iterator[dict]:
    """Run the methods in turn, one round for each seed after the first."""
    work = f"{n_cells:,} x {n_markers}"
    reference = cluster(mixture(min(n_cells, 25_000), n_markers, 0), 0)
    calls: dict[str, Callable] = {
        OURS: cluster,
        ASSIGN: lambda x, seed: scmoe.tl.assign(ad.AnnData(x), reference),
        LIMIT: lambda x, seed: bare_pass(x),
    }
    calls |= {name: call for name, (call, most) in PEERS.items() if n_cells <= most}
    chosen = options.choose("methods", list(calls))
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in range(len(options.seeds) + 1):
        x = mixture(n_cells, n_markers, seed)
        for name in chosen:
            record = attempt(
                {"work": work, "method": name},
                lambda name=name, x=x, seed=seed: {
                    "seconds": timed(lambda: calls[name](x, seed))[1]
                },
                say,
            )
            if "seconds" not in record:
                yield record
            elif seed:
                seconds[name].append(record["seconds"])
    for name, times in seconds.items():
        if times:
            median = float(np.median(times))
            yield {
                "work": work,
                "method": name,
                "seconds": round(median, 2),
                "us_per_cell": round(1e6 * median / n_cells, 2),
                "rounds": len(times),
            }


def in_fresh_process(code: str) -> float:
    """Return the CPU seconds of a program in a new Python process."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))[1]


def fresh(options: Options, say: Callable) -> Iterator[dict]:
    """Return the CPU seconds of the first call, with its imports."""
    programs = {
        IMPORT: "import scmoe.tl",
        FRESH: """
            import anndata, scmoe
            from benchmarks.speed import mixture
            scmoe.tl.cluster(anndata.AnnData(mixture(25_000, 8, 0)), progress=False)
        """,
    }
    for work, code in programs.items():

        def call(code: str = code) -> dict:
            times = [in_fresh_process(code) for _ in options.seeds]
            return {"seconds": round(float(np.median(times)), 2), "rounds": len(times)}

        yield attempt({"work": work, "method": OURS}, call, say)


def write_zarr(folder: Path, n_cells: int, n_markers: int) -> Path:
    """Write a store of simulated cells, chunk by chunk."""
    import zarr

    path = folder / f"{n_cells}.zarr"
    some = ad.AnnData(mixture(CHUNK, n_markers, 0))
    some[:0].copy().write_zarr(path)
    group = zarr.open_group(path, mode="a", use_consolidated=False)
    attributes = dict(group["X"].attrs)
    del group["X"]
    x = group.create_array(
        "X", shape=(n_cells, n_markers), chunks=(65_536, n_markers), dtype="float32"
    )
    x.attrs.update(attributes)
    for start in range(0, n_cells, CHUNK):
        stop = min(start + CHUNK, n_cells)
        x[start:stop] = mixture(CHUNK, n_markers, 1 + start)[: stop - start]
    names = np.arange(n_cells).astype(str).astype(object)
    ad.io.write_elem(group, "obs", ad.AnnData(shape=(n_cells, 0), obs={"cell": names}).obs)
    zarr.consolidate_metadata(path)
    return path


def from_disk(n_cells: int, say: Callable) -> dict:
    """Cluster a store in a new process; return wall-clock seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_zarr(Path(folder), n_cells, 40)
        code = f"""
            import resource, time, anndata, scmoe
            start = time.perf_counter()
            cells = anndata.experimental.read_lazy({str(path)!r})
            scmoe.tl.cluster(cells, progress=False)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(time.perf_counter() - start, peak / 2**20)
        """
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split()[-2:])
    return {
        "seconds": round(seconds, 1),
        "us_per_cell": round(1e6 * seconds / n_cells, 2),
        "peak_gib": round(peak, 2),
        "rounds": 1,
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each task and method; ``--datasets`` chooses the parts."""
    parts = options.choose("datasets", ["in turn", "fresh", "from disk"])
    if "in turn" in parts:
        for n_cells, n_markers in SIZES[options.size]:
            yield from alternating(n_cells, n_markers, options, say)
    if "fresh" in parts:
        yield from fresh(options, say)
    if "from disk" in parts and options.size == "full":
        for n_cells in FROM_DISK:
            identity = {"work": f"{n_cells:,} x 40, from zarr", "method": OURS}
            yield attempt(identity, lambda n_cells=n_cells: from_disk(n_cells, say), say)


TEXT = f"""## Speed

Made-up cells in {N_POPULATIONS} populations, the rarest with {100 * RAREST:g} % of them. The
methods take turns in one process, and the first round, in which things are compiled, does not
count: median CPU seconds on one core. Of what is read from zarr, seconds by the clock and the
largest memory. The *limit* is one pass of bare networks over all cells. Peers are left out where
they take too long. Compare within a work: machines differ.

"""


def section(result: dict) -> str:
    """Return one table of tasks, their seconds and those per cell."""
    table = measured(result["records"])
    if table.empty:
        return TEXT
    flowsom = table[table["method"] == "FlowSOM"].set_index("work")["seconds"]

    def shown(row: dict, column: str, digits: int) -> str:
        value = row.get(column)
        return "" if value is None or np.isnan(value) else f"{value:,.{digits}f}"

    return TEXT + markdown(
        ["work", "method", "seconds", "times FlowSOM", "µs a cell", "GiB", "rounds"],
        (
            [
                row["work"],
                row["method"],
                shown(row, "seconds", 2),
                f"{row['seconds'] / flowsom[row['work']]:.1f}" if row["work"] in flowsom else "",
                shown(row, "us_per_cell", 2),
                shown(row, "peak_gib", 1),
                row["rounds"],
            ]
            for row in table.to_dict("records")
        ),
    )
