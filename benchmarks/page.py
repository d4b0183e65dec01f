"""The page of the documentation, made from the results."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

from benchmarks import EXPERIMENTS, summary
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


PICTURE = """```{{image}} {name}
:alt: Every method of the table, a panel for each comparison; scmoe is a red diamond.
```

"""


def write(results: Path, page: Path) -> None:
    """Write the page from all available results, and its picture."""
    found = {
        name: json.loads(path.read_text())
        for name in EXPERIMENTS
        if (path := results / f"{name}.json").exists()
    }
    text = HEAD
    if table := summary.table(found):
        picture = page.with_suffix(".svg")
        summary.draw(found, picture)
        text += summary.HEAD + PICTURE.format(name=picture.name) + table
    for name, result in found.items():
        module = importlib.import_module(f"benchmarks.{name}")
        versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        text += "\n" + module.section(result)
        text += failures(result["records"], module.KEYS)
        text += f"\nMachine of the latest run: {result['machine']}; {versions}.\n"
    page.write_text(text)
