"""What the columns of an FCS file are called and what they measure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

FLUOR, MASS, SCATTER, TIME, OTHER = "fluor", "mass", "scatter", "time", "other"
"""The kinds of channel; the first two are markers."""

MARKER_KINDS = (FLUOR, MASS)

_ELEMENTS = (
    "Ag|Au|Ba|Bi|Cd|Ce|Cs|Dy|Er|Eu|Gd|Hf|Hg|Ho|In|Ir|I|La|Lu|Nd|Os|Pb|Pd|Pm|Pr|Pt|Re|Rh|Ru|"
    "Sb|Sm|Sn|Ta|Tb|Te|Tl|Tm|W|Xe|Yb|Y"
)
_METAL = re.compile(
    rf"(?:^|[^A-Za-z0-9])(?:(?:{_ELEMENTS})(?P<after>\d{{2,3}})|(?P<before>\d{{2,3}})"
    rf"(?:{_ELEMENTS}))(?:D[idx])?(?=$|[^A-Za-z0-9])"
)
_DUAL_COUNT = re.compile(r"\(\d{2,3}(?::\d{2,3})?\)D[id]$|\d{2,3}D[id]$")
_CYTOF = re.compile(r"cytof|helios|dvs|fluidigm|standard ?bio", re.IGNORECASE)

_TIME = re.compile(r"^(hdr-?t|time\d*|time[ _-]?(lsw|msw)|tlsw|tmsw|time ?\(.*\))$")
_SCATTER = re.compile(
    r"(^|[^a-z])(v|b|y|yg|r|uv|n|p)?-?(fsc|ssc|bsc|fals|sals|lals)\d?w?a?h?($|[^a-z])"
    r"|\d(fsc|ssc|bsc)($|[^a-z])"
    r"|^(fs|ss)\d?([ _-]|$)"
    r"|forward ?sc|side ?sc"
)
_TECHNICAL = re.compile(
    # what the instrument or its software says about an event
    r"^(event|ev|event ?(no|number|#|info|count|length)|cell ?length|cell ?(id|index)"
    r"|center|offset|width|pulse ?width|residual|amplitude|doublet|hdr (ce|se|v)"
    r"|unused ?\d*|index|file ?(no|number|name|id)?|sample ?(id)?"
    # the intercalator that finds nucleated cells, and what tells dead cells
    r"|(ir|dna ?\d?)[ -]?(191|193)?(d[idx])?|dna ?\d?|(191|193) ?ir|intercalator"
    r"|viability ?\d?|live ?dead|dead|cisplatin|cis ?pt"
    # barcodes and beads
    r"|bc ?\d+|barcode ?\d*|beads? ?\d*|bead ?dist|beadst( bead ?dist)?"
    # a metal that was measured without a stain, where the name says so
    r"|empty"
    # what somebody computed: labels of benchmark files, clusters, gates, embeddings
    r"|label|labels|population|population ?id|gate|gated?|cluster( ?id)?|phenograph|flowsom"
    r"|wanderlust|pseudotime|scmoe( proba| outlier)?"
    r"|condition|t?sne ?\d|umap ?\d)$"
)


def is_mass_cytometer(channels: Sequence[str], cytometer: str) -> bool:
    """Tell a mass cytometer by its name (``$CYT``) or by a metal in the name of a channel."""
    if _CYTOF.search(cytometer):
        return True
    return any(_is_metal(channel) for channel in channels)


def channel_kind(channel: str, marker: str, *, mass: bool) -> str:
    """Say what a channel measures: ``fluor``, ``mass``, ``scatter``, ``time`` or ``other``.

    Parameters
    ----------
    channel
        Its name on the instrument (``$PnN``).
    marker
        What it was stained for (``$PnS``), ``""`` for nothing.
    mass
        Whether the file comes from a mass cytometer, :func:`is_mass_cytometer`.

    Notes
    -----
    ``other`` are columns that are clearly no marker, by their names alone: event counters
    and pulse shapes (``Event_length``, ``Center``, ``Offset``, ``Width``, ``Residual``), the
    DNA intercalator, viability stains named as such, barcodes (``BC1``), beads, metals named
    ``empty``, and computed columns (``label``, ``population``, ``PhenoGraph``). A metal without
    a name stays ``mass``: nothing says whether there was a stain on it.
    """
    names = [_plain(name) for name in (marker, channel) if name]
    if any(_TIME.match(name.replace("_", " ")) for name in names):
        return TIME
    if any(_TECHNICAL.match(form) for name in names for form in _forms(name, mass=mass)):
        return OTHER
    if mass:
        return MASS
    return SCATTER if any(_SCATTER.search(name) for name in names) else FLUOR


def _plain(name: str) -> str:
    return name.strip().lower()


def _forms(name: str, *, mass: bool) -> list[str]:
    """Return the name with punctuation as blanks; from a mass cytometer without its metal too."""
    forms = [name]
    if mass:
        forms.append(re.sub(r"\(?(?:[a-z]{1,2}\d{2,3}|\d{2,3}[a-z]{1,2})\)?(?:d[idx])?", "", name))
    return [re.sub(r"[\W_]+", " ", form).strip() for form in forms]


def _is_metal(channel: str) -> bool:
    if _DUAL_COUNT.search(channel):
        return True
    found = _METAL.search(channel.replace("_", " "))
    if found is None:
        return False
    return 75 <= int(found["after"] or found["before"]) <= 238


def variable_names(channels: Sequence[str], markers: Sequence[str]) -> list[str]:
    """Name columns by marker, else channel; repeated ones become ``"marker (channel)"``.

    What even that leaves equal (the same channel twice) is numbered: ``"FL1-A-2"``.
    """
    names = [marker or channel for channel, marker in zip(channels, markers, strict=True)]
    count = Counter(names)
    names = [
        f"{name} ({channel})" if count[name] > 1 and name != channel else name
        for name, channel in zip(names, channels, strict=True)
    ]
    taken = set()
    for i, name in enumerate(names):
        unique, k = name, 1
        while unique in taken or (k > 1 and unique in names):
            k += 1
            unique = f"{name}-{k}"
        names[i] = unique
        taken.add(unique)
    return names
