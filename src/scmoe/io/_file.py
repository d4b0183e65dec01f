"""One FCS file: what it holds, and its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from ._channels import (
    ADDED,
    ADDED_KEYWORD,
    WHY,
    describe_channel,
    is_mass_cytometer,
    mark_copies,
    variable_names,
)
from ._data import Place, locate
from ._decode import pieces
from ._errors import Fault, Repairs, listed, naming, printable, shown
from ._layout import read_layouts
from ._scale import Scale, read_scales
from ._source import Source, open_source
from ._spillover import Spill, find_spill
from ._split import BLANKS, Keywords, capitals, numbered, to_number
from ._text import Text, check_gap, read_text, read_texts


@dataclass
class FCSText:
    """One data set of a file, all but its values."""

    path: Path
    dataset: int
    """Number of the data set within the file, from 0."""
    text: Text
    """HEADER and TEXT."""
    place: Place
    """Where DATA lies, and how it is stored."""
    names: list[str]
    """``$PnN``, without blanks around them and without control characters."""
    markers: list[str]
    """``$PnS`` likewise, ``""`` for none."""
    scales: list[Scale]
    """What takes stored numbers to the linear scale."""
    notes: Repairs
    offsets: str = "auto"
    """What decided between two places of DATA."""
    several: bool = False
    """Whether other data sets of the file are read, too."""

    @property
    def told(self) -> str:
        """What the data set is called in messages."""
        path = printable(str(self.path))
        return f"{path} (data set {self.dataset})" if self.several else path

    @property
    def version(self) -> str:
        """For instance ``"FCS3.1"``."""
        return self.text.version

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.place.n_events

    @property
    def repairs(self) -> list[str]:
        """What disagreed with the standard, and how it was read."""
        return self.notes.told

    @cached_property
    def keywords(self) -> dict[str, str]:
        """The TEXT segment: lower case, without the leading ``$``."""
        return self.text.plain

    @cached_property
    def variables(self) -> list[str]:
        """Names of the channels as variables of an AnnData."""
        return variable_names(self.names, self.markers)

    @cached_property
    def var(self) -> pd.DataFrame:
        """One row a channel: ``channel, marker, kind, why, PnB, PnE, PnG, PnR``."""
        keywords, numbers = self.text.keywords, range(1, len(self.names) + 1)
        mass = is_mass_cytometer(self.names, keywords.get("$CYT", ""))
        # other programs may drop or reorder channels, so those that scmoe added are told by name
        added = {name.strip() for name in keywords.get(ADDED_KEYWORD, "").split(",")}
        kinds = [
            ADDED if channel in added else describe_channel(channel, marker, mass=mass)
            for channel, marker in zip(self.names, self.markers, strict=True)
        ]
        pne = [keywords.get(f"$P{i}E", "0,0").strip(BLANKS) for i in numbers]
        kinds = mark_copies(self.names, self.markers, kinds, pne)
        table = {
            "channel": self.names,
            "marker": self.markers,
            "kind": [kind for kind, _ in kinds],
            WHY: [why for _, why in kinds],
            "PnB": [_bits(keywords, i) for i in numbers],
            "PnE": pne,
            "PnG": [_number(keywords, f"$P{i}G", 1.0) for i in numbers],
            "PnR": [_number(keywords, f"$P{i}R", np.nan) for i in numbers],
        }
        return pd.DataFrame(table, index=self.variables)


@dataclass
class FCSFile:
    """One data set of a file."""

    values: np.ndarray
    """Events x channels, on the linear scale."""
    about: FCSText
    spill: Spill

    @property
    def spillover(self) -> pd.DataFrame | None:
        """The matrix that the file carries."""
        return self.spill.matrix

    @property
    def path(self) -> Path:
        """The file."""
        return self.about.path

    @property
    def var(self) -> pd.DataFrame:
        """See :attr:`FCSText.var`."""
        return self.about.var

    @property
    def keywords(self) -> dict[str, str]:
        """The TEXT segment: lower case, without the leading ``$``."""
        return self.about.keywords

    @property
    def repairs(self) -> list[str]:
        """What disagreed with the standard, and how it was read."""
        return self.about.repairs


def read_file(
    path: str | PathLike[str],
    dataset: int = 0,
    dtype: str = "float64",
    strict: bool = False,
) -> FCSFile:
    """Read one data set of one file.

    Parameters
    ----------
    path
        The file, which may be compressed with gzip.
    dataset
        Which data set, counted from 0.
    dtype
        Of the values, ``"float32"`` or ``"float64"``.
    strict
        Refuse what would be repaired.

    Raises
    ------
    FCSReadError
        If the file cannot be read, or can be read in more than one way.
    FileNotFoundError, PermissionError
        If there is no such file, or no right to read it.
    """
    about = read_about(path, dataset=dataset, strict=strict)
    values = np.empty((about.n_events, len(about.names)), dtype=dtype)
    read_values(about, values)
    return FCSFile(values, about, spill_of(about))


def read_about(
    path: str | PathLike[str],
    *,
    dataset: int = 0,
    offsets: str = "auto",
    strict: bool = False,
) -> FCSText:
    """Read all of a data set but its values; parameters and errors of :func:`read_file`.

    `offsets` decides between two places of DATA, see :func:`locate`.
    """
    path = Path(path)
    notes = Repairs(strict=strict)
    with naming(path), open_source(path) as source:
        text = read_text(source, dataset, notes)
        return _about(path, source, text, notes, dataset=dataset, offsets=offsets)


def read_every(
    path: str | PathLike[str], *, offsets: str = "auto", strict: bool = False
) -> list[FCSText]:
    """Read what :func:`read_about` reads, of all data sets of a file."""
    path = Path(path)
    found: list[FCSText] = []
    with naming(path), open_source(path) as source:
        try:
            for text, notes, odd in read_texts(source, strict=strict):
                if odd is not None:
                    notes.repair(odd, "$NEXTDATA", text.keywords["$NEXTDATA"])
                n = len(found)
                found.append(_about(path, source, text, notes, dataset=n, offsets=offsets))
        except Fault as fault:
            where = f"data set {len(found)} (counted from 0): " if found else ""
            hint = "; `dataset=` reads the others one by one" if found else ""
            reason = f"{where}{fault.reason}{hint}"
            raise Fault(reason, fault.keyword, fault.value) from None
    for about in found:
        about.several = len(found) > 1
    return found


def _about(
    path: Path, source: Source, text: Text, notes: Repairs, *, dataset: int, offsets: str
) -> FCSText:
    keywords = text.keywords
    _check_mode(text, notes)
    names = _names(keywords, notes)
    markers = [keywords.get(f"$P{i}S", "").strip(BLANKS) for i in range(1, len(names) + 1)]
    stored = read_layouts(keywords, text.version, len(names), notes)
    linear = read_scales(keywords, names, stored[0].columns, notes)
    place = locate(text, source, stored, notes, offsets)
    check_gap(text, source, place.start - text.offset, notes)
    return FCSText(
        path,
        dataset,
        text,
        place,
        _printable("N", names, notes),
        _printable("S", markers, notes),
        linear,
        notes,
        offsets,
    )


def _printable(letter: str, names: list[str], notes: Repairs) -> list[str]:
    """Leave characters out of names that h5ad cannot hold or a terminal obeys."""
    kept = []
    for i, name in enumerate(names, start=1):
        plain = printable(name)
        if plain != name:
            key = f"$P{i}{letter}"
            if letter == "N" and not plain:
                raise Fault(f"{key} holds no printable character: {shown(name)}", key, name)
            notes.repair(
                f"characters of {key} that cannot be printed were left out: {shown(name)}",
                key,
                name,
            )
        kept.append(plain)
    return kept


def read_values(
    about: FCSText,
    out: np.ndarray,
    channels: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
) -> None:
    """Read the values of a data set into an array.

    Parameters
    ----------
    about
        From :func:`read_about`. Its repairs receive what the values tell.
    out
        Events x columns, of floats.
    channels
        Which channels to read, counted from 0; all by default.
    columns
        Into which columns of `out` they go; by default the first ones.
    """
    channels = list(range(len(about.names)) if channels is None else channels)
    columns = list(range(len(channels)) if columns is None else columns)
    everything = channels == columns == list(range(out.shape[1])) == list(range(len(about.names)))
    with (
        naming(about.path),
        open_source(about.path) as source,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        bad = np.zeros(out.shape[1], dtype=int)
        for rows, events in pieces(source, about.place):
            part = out[rows]
            whole = everything and events.matrix is not None
            if whole:
                part[...] = events.matrix
            for i, column in zip(channels, columns, strict=True):
                scale = about.scales[i]
                if whole and scale.is_identity:
                    continue
                values = events.column(i)
                part[:, column] = values if scale.is_identity else scale.apply(values)
            finite = np.isfinite(part)
            if not finite.all():
                bad += (~finite).sum(axis=0)
        source.check()
    named = [about.variables[i] for i, k in zip(channels, columns, strict=True) if bad[k]]
    if named:
        about.notes.tell(
            f"{bad[columns].sum()} values are not finite and were kept, in: {', '.join(named)}"
        )


def spill_of(about: FCSText) -> Spill:
    """Return what the file says of spillover; a matrix that cannot be used is a repair."""
    with naming(about.path):
        return find_spill(about.text.keywords, about.names, about.markers, about.notes)


def _check_mode(text: Text, notes: Repairs) -> None:
    """Refuse histograms; FCS 3.2 knows list mode only, and may leave it out."""
    if not text.keywords.get("$MODE", "").strip(BLANKS):
        if text.version != "FCS3.2":
            notes.moved("$MODE is missing; taken as list mode", "$MODE")
        return
    mode = capitals(text.keywords.need("$MODE"))
    if mode != "L":
        raise Fault(f"$MODE is {mode!r}; only list mode (L) can be read", "$MODE", mode)


def _names(keywords: Keywords, notes: Repairs) -> list[str]:
    """Return ``$PnN`` if 1 to ``$PAR`` and no others are the channels that have a name."""
    n = keywords.integer("$PAR")
    said = keywords["$PAR"]
    if n < 1:
        raise Fault(f"$PAR is {n}", "$PAR", said)
    found = sorted(numbered(keywords, "N"))
    if found != list(range(1, len(found) + 1)) or len(found) != n:
        raise Fault(f"$PAR is {n}, but $PnN is there for n = {listed(found)}", "$PAR", said)
    more = sorted({i for letter in "BER" for i in numbered(keywords, letter) if not 1 <= i <= n})
    if more:
        notes.repair(
            f"$PAR is {n}, but channels are described for n = {listed(more)}", "$PAR", said
        )
    names = [keywords[f"$P{i}N"].strip(BLANKS) for i in found]
    unnamed = [f"$P{i}N" for i, name in enumerate(names, start=1) if not name]
    if unnamed:
        reason = f"channels without a name: {', '.join(unnamed)} blank"
        raise Fault(reason, unnamed[0], keywords[unnamed[0]])
    return names


def _bits(keywords: Keywords, i: int) -> int:
    """Return ``$PnB``, 0 for text that ends at a delimiter."""
    key = f"$P{i}B"
    return 0 if keywords.need(key) == "*" else keywords.integer(key)


def _number(keywords: Keywords, key: str, default: float) -> float:
    """Return a number for the table of channels, NaN for what is none."""
    text = keywords.get(key, "").strip(BLANKS)
    number = to_number(text) if text else default
    return np.nan if number is None else number
