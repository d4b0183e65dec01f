"""The documentation page, made from the results."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

from benchmarks import EXPERIMENTS
from benchmarks.tables import failures

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """# Benchmarks

Made by `python -m benchmarks` from `benchmarks/results/`; do not edit by hand. Every method saw
the same values, with the settings that its users start from; scmoe ran with every default unless
its name or the text of a section says otherwise. Hyper-parameters were chosen on the Bodenmiller
wells and on samusik RAMP. Scores are explained in [Metrics](metrics.md). Times on a shared machine
are rough; compare within a table.
"""


def write(results: Path, page: Path) -> None:
    """Write the page from whatever results there are."""
    text = HEAD
    for name in EXPERIMENTS:
        path = results / f"{name}.json"
        if path.exists():
            module = importlib.import_module(f"benchmarks.{name}")
            result = json.loads(path.read_text())
            versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
            text += "\n" + module.section(result)
            text += failures(result["records"], module.KEYS)
            text += f"\nMachine of the latest run: {result['machine']}; {versions}.\n"
    page.write_text(text)
