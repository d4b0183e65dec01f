"""Read every available real FCS file with scmoe and flowio, and write a page of the docs.

    SCMOE_DATA_DIR=... python scripts/fcs_table.py docs/fcs-files.md

The files are looked for in ``fcs/*/``, ``bodenmiller/*/`` and ``bcr_xl/`` of the folder that
``SCMOE_DATA_DIR`` names.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import flowio
import numpy as np
from tqdm import tqdm

from scmoe.io import FCSReadError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "io"))

from fcs_file import FCSFile, read_file

RAISED_BY_FLOWIO = (
    flowio.exceptions.FlowIOException,
    ValueError,
    LookupError,
    NotImplementedError,
    OSError,
    EOFError,
    struct.error,
    re.error,
)

TOP = """\
# FCS files that were tried

Every file below was written by an instrument or by software in use, and published by the project
whose tests carry it. {{func}}`scmoe.io.read_fcs` reads {read} of {total} files of many instruments
({repaired} of them with a repair, which is a warning and is listed in `.uns["fcs"]`) and refuses
{refused}, which are no whole FCS files. `strict=True` refuses those with a repair, too.

*What it is*: version, instrument (`$CYT`), type, bits and order of the bytes of the numbers,
events x channels. The last column is what [flowio](https://github.com/whitews/FlowIO) {flowio}
does with the same file when it is called without options, `FlowData(path).as_array()`: *same* is
the same numbers as ours, *differs* are others, and the name of an error is the error raised.

This page is written by `scripts/fcs_table.py`.

"""

MADE = """
## What goes wrong without an error

Files made for the purpose, each with one thing that is odd about it; the right values are known.
Empty values, rare delimiters, integers of 24 bits and counts that do not fit are met in practice.
flowio also takes the `$` out of values (`cost $5` becomes `cost 5`) and makes one keyword of an
empty value's keyword and the one behind it.

"""

NOTES = """
## How a file is judged

- **Read**: the file keeps to the standard (FCS 2.0, 3.0, 3.1 or 3.2).
- **Repaired**: it does not, but one reading only is possible. Offsets that end a byte late, empty
  values, a missing `$TOT`, `$PnE` of `4,0`: read, with a warning and an entry in
  `.uns["fcs"][sample]["repairs"]`.
- **Refused**: two readings are possible, or none. `FCSReadError` names the file, the keyword and
  its value.

Values are on the linear scale: `$PnG`, `$PnE` and `$TIMESTEP` are applied. flowio takes a
logarithmic `$PnE` on floats at its word; floats are stored on the linear scale, so it is ignored
here, with a repair. That is why two CyTOF files differ.
"""


@dataclass
class Answer:
    """The result of reading a file."""

    file: FCSFile | None
    said: str
    flowio: str


def one_line(text: str) -> str:
    """Make text fit into a cell of a table."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text.replace("|", "\\|").replace("$", "\\$").strip()


def read(path: Path) -> Answer:
    try:
        file = read_file(path)
    except FCSReadError as error:
        return Answer(None, f"refused: {error.reason}", by_flowio(path, None))
    said = "; ".join(file.repairs) or "read"
    return Answer(file, said, by_flowio(path, file.values))


def by_flowio(path: Path, ours: np.ndarray | None) -> str:
    """Return what flowio does without options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as handle:
                values = flowio.FlowData(handle).as_array()
        except RAISED_BY_FLOWIO as error:
            return name_of(error)
    if ours is None:
        return "reads it"
    if values.shape != ours.shape:
        return "differs"
    return "same" if np.allclose(values, ours, rtol=1e-6, equal_nan=True) else "differs"


def name_of(error: Exception) -> str:
    """Return the type of an error, with its module where the name is ambiguous."""
    kind = type(error)
    return f"{kind.__module__}.error" if kind.__name__ == "error" else kind.__name__


def storage(file: FCSFile) -> str:
    """Return how numbers are stored, for instance ``I 16, big-endian``."""
    keywords, layout = file.about.text.keywords, file.about.place.layout
    kinds = sorted({column.kind for column in layout.columns})
    bits = sorted({column.bits for column in layout.columns})
    order = keywords.get("$BYTEORD", "").strip()
    order = {"1,2,3,4": "little", "1,2": "little", "4,3,2,1": "big", "2,1": "big"}.get(
        order, order
    )
    return f"{'/'.join(kinds)} {'/'.join(map(str, bits))} {order}"


HEAD = ["| file | what it is | scmoe | flowio |", "| --- | --- | --- | --- |"]


def described(file: FCSFile, n_events: int) -> str:
    """Return version, instrument, storage and size of a file, in words."""
    version = file.about.version.replace("FCS", "FCS ")
    instrument = file.keywords.get("cyt", "").strip()
    size = f"{n_events:,} x {file.values.shape[1]}"
    return ", ".join(part for part in (version, instrument, storage(file), size) if part)


def line(*cells: str) -> str:
    return "| " + " | ".join(map(one_line, cells)) + " |"


def row(path: Path, answer: Answer) -> str:
    what = "" if answer.file is None else described(answer.file, len(answer.file.values))
    return line(path.name, what, answer.said, answer.flowio)


def table(folder: Path, answers: dict[Path, Answer]) -> list[str]:
    rows = (row(path, answer) for path, answer in answers.items())
    return [f"## {folder.name}", "", *HEAD, *rows, ""]


def summary(name: str, answers: list[Answer]) -> str:
    """Return one line for a folder of similar files."""
    files = [answer.file for answer in answers if answer.file is not None]
    events = sum(len(file.values) for file in files)
    said = Counter(answer.said for answer in answers).most_common(1)[0][0]
    theirs = ", ".join(f"{kind} ({n})" for kind, n in Counter(a.flowio for a in answers).items())
    return line(f"{name}, {len(answers)} files", described(files[0], events), said, theirs)


def specimen(
    *,
    delimiter: str = "/",
    data: bytes | None = None,
    raw: str = "",
    version: str = "FCS3.1",
    **keywords: str,
) -> bytes:
    """Make a file of three events of the channels A and B: 1 2, 3 4, 5 6."""
    values = np.array([1, 2, 3, 4, 5, 6])
    data = values.astype("<f4").tobytes() if data is None else data
    table = {
        "BEGINANALYSIS": "0", "ENDANALYSIS": "0", "BEGINSTEXT": "0", "ENDSTEXT": "0",
        "BEGINDATA": "{first:>8}", "ENDDATA": "{last:>8}", "BYTEORD": "1,2,3,4", "DATATYPE": "F",
        "MODE": "L", "NEXTDATA": "0", "PAR": "2", "TOT": "3", "P1N": "A", "P2N": "B",
        "P1B": "32", "P2B": "32", "P1E": "0,0", "P2E": "0,0", "P1R": "1024", "P2R": "1024",
    } | keywords  # fmt: skip
    pairs = "".join(f"${key}{delimiter}{value}{delimiter}" for key, value in table.items())
    text = f"{delimiter}{raw}{pairs}"
    first = 58 + len(text.format(first=0, last=0))
    last = first + len(data) - 1
    text = text.format(first=first, last=last)
    header = f"{version}    {58:>8}{first - 1:>8}{first:>8}{last:>8}{0:>8}{0:>8}"
    return header.encode() + text.encode() + data


def specimens() -> dict[str, bytes]:
    values = np.array([1, 2, 3, 4, 5, 6])
    wide = b"".join(int(value).to_bytes(3, "little") for value in values)
    mixed = values.astype("<f4").tobytes()
    middle = values.astype(">u4").view("u1").reshape(-1, 4)[:, [1, 0, 3, 2]].tobytes()
    of_24 = {"P1B": "24", "P2B": "24", "DATATYPE": "I", "P1R": "16777216", "P2R": "16777216"}
    return {
        "delimiter `+`": specimen(delimiter="+"),
        "delimiter `^`": specimen(delimiter="^"),
        "a value is left empty (`$COM//`)": specimen(raw="$COM//"),
        "`$TOT` is 2, DATA holds 3": specimen(TOT="2"),
        "`$TOT` is 1,000,000,000,000,000": specimen(TOT="1000000000000000"),
        "`$TOT` is negative": specimen(TOT="-3"),
        "integers of 24 bits": specimen(data=wide, **of_24),
        "`$BYTEORD` is 3,4,1,2": specimen(data=middle, BYTEORD="3,4,1,2", DATATYPE="I"),
        "FCS 3.2, one channel of integers": specimen(
            version="FCS3.2",
            data=b"".join(
                mixed[8 * i : 8 * i + 4] + struct.pack("<I", 2 * i + 2) for i in range(3)
            ),
            P2DATATYPE="I",
        ),
        "`$MODE` is C (a histogram)": specimen(MODE="C"),
        "ASCII of fixed width": specimen(data=b"123456", DATATYPE="A", P1B="1", P2B="1"),
        "a private keyword `P1G` beside no `$P1G`": specimen(raw="P1G/2/"),
        "`$P1G` twice, 2 and 4": specimen(raw="$P1G/2/$P1G/4/"),
        "`$P3N` is there, `$PAR` is 2": specimen(P3N="C", P3R="1024"),
    }


def numbers(values: np.ndarray) -> str:
    rows = (" ".join(f"{value:g}" for value in event) for event in values[:3])
    return f"reads {', '.join(rows) or 'nothing'}"


def made() -> list[str]:
    """Return a table of files that are made for one fault each."""
    lines = ["| what is odd | scmoe | flowio |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.fcs"
        for name, blob in specimens().items():
            path.write_bytes(blob)
            try:
                file = read_file(path)
                ours = "; ".join([numbers(file.values), *file.repairs])
            except FCSReadError as error:
                ours = f"refused: {error.reason}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    with path.open("rb") as handle:
                        theirs = numbers(flowio.FlowData(handle).as_array())
                except RAISED_BY_FLOWIO as error:
                    theirs = name_of(error)
            cells = (name, one_line(ours), one_line(theirs))
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def page(data: Path) -> str:
    """Write the page."""
    folders = sorted(folder for folder in (data / "fcs").iterdir() if folder.is_dir())
    lines, everything = [], []
    bar = tqdm(folders, unit="folder")
    for folder in bar:
        answers = {path: read(path) for path in sorted(folder.iterdir()) if path.is_file()}
        everything += answers.values()
        lines += table(folder, answers)
    lines += ["## Whole experiments", "", *HEAD]
    for folder in ("bodenmiller/H05", "bodenmiller/H08", "bcr_xl"):
        files = sorted((data / folder).glob("*.fcs"))
        lines.append(summary(folder, [read(path) for path in files]))
    read_well = [answer for answer in everything if answer.file is not None]
    top = TOP.format(
        read=len(read_well),
        total=len(everything),
        repaired=sum(bool(answer.file.repairs) for answer in read_well),
        refused=len(everything) - len(read_well),
        flowio=flowio.__version__,
    )
    return top + "\n".join(lines) + "\n" + MADE + "\n".join(made()) + "\n" + NOTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", default=Path("docs/fcs-files.md"))
    arguments = parser.parse_args()
    folder = os.environ.get("SCMOE_DATA_DIR")
    if not folder or not Path(folder, "fcs").is_dir():
        print("SCMOE_DATA_DIR must name the folder of the real files", file=sys.stderr)
        return 1
    text = page(Path(folder))
    partial = arguments.page.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
