"""Find the kind of each channel (marker, scatter, time, ...) by its names, and name variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

FLUOR, MASS, SCATTER, TIME, COPY, OTHER = "fluor", "mass", "scatter", "time", "copy", "other"
"""The kinds of channels; the first two are markers."""

WHY = "why"
"""Column of the tables of channels with the reason for the kind."""
ADDED_KEYWORD = "SCMOE_COMPUTED"
"""Keyword that lists the channels that `write_fcs` added, with commas between."""


class Kind(NamedTuple):
    """Kind of a channel, and the reason for it."""

    kind: str
    why: str


ADDED = Kind(OTHER, "computed, by the keyword of scmoe")

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


def is_mass_cytometer(channels: Sequence[str], cytometer: str = "") -> bool:
    """Detect a mass cytometer by its name (``$CYT``) or by a metal in the name of a channel."""
    if _CYTOF.search(cytometer):
        return True
    return any(_is_metal(channel) for channel in channels)


def _is_metal(channel: str) -> bool:
    if _DUAL_COUNT.search(channel):
        return True
    found = _METAL.search(channel.replace("_", " "))
    if found is None:
        return False
    return 75 <= int(found["after"] or found["before"]) <= 238


# the isotope or filter is removed from a name before it is split; CD103 is not cadmium
_CARRIERS = _ELEMENTS.replace("|Ir|", "|")
_CASED = rf"{_CARRIERS}|(?!CD)(?:{_CARRIERS.upper()})"
_ISOTOPE = re.compile(
    rf"\((?:(?:{_CASED})\d{{2,3}}|\d{{2,3}}(?:{_CASED}))\)(?:D[idx])?"
    rf"|(?<![A-Za-z0-9])(?:(?:{_CASED})[-_ ]?\d{{2,3}}|\d{{2,3}}[-_ ]?(?:{_CASED}))"
    r"(?:D[idx])?(?![A-Za-z0-9])"
)
_OPTICS = re.compile(r"\d+(?:/\d+)?nm|\(?\d{3}[/-]\d{1,3}\)?|\(?\d{3} ?[LS]P\)?|@\d+\S*")
_WORDS = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    r"|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|[\W_]+"
)


def _words(name: str, *, mass: bool) -> str:
    """Return the words of a name, split at punctuation, capitals and digits, with blanks between.

    The isotope, or the filter, is removed first.
    """
    name = (_ISOTOPE if mass else _OPTICS).sub(" ", name)
    return " ".join(word for word in _WORDS.split(name.strip()) if word).lower()


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)(?:{pattern})(?!\S)")


def _nothing_but(pattern: str) -> re.Pattern[str]:
    # possessive, so that no name takes exponential time
    return re.compile(rf"(?:(?:{pattern})(?: |$))*+")


class _Rule:
    """A rule that finds the kind of a channel by words: anywhere in its name, or alone.

    Parameters
    ----------
    why
        The reason that the user sees.
    anywhere
        Words that match wherever they are: no marker has them in its name.
    alone
        Words that match if all other words of the name are in `beside` or mean nothing.
    beside
        See `alone`.
    only
        The instrument that the rule is for (``fluor`` or ``mass``), if words have another
        meaning on the other one.
    numbers
        Whether numbers in the name mean nothing.
    """

    NOTHING = (
        "dyes?|stain(?:s|ing)?|channel|ch|cyc|reg|cells?|(?:fj )?comp|log|lin|area|height|width"
        r"|peak|[ahw](?!\S)|d[dix]"
    )

    def __init__(
        self,
        why: str,
        anywhere: str = "(?!)",
        *,
        alone: str = "(?!)",
        beside: str = "(?!)",
        only: str = "",
        numbers: bool = True,
    ) -> None:
        self.why = why
        self.only = only
        self._anywhere = _word(anywhere)
        self._alone = _word(alone)
        self._all = _nothing_but(f"{alone}|{beside}|{self.NOTHING}" + (r"|\d+" if numbers else ""))

    def fits(self, words: str, *, mass: bool) -> bool:
        """Whether the rule matches these words."""
        if self.only and self.only != (MASS if mass else FLUOR):
            return False
        if self._anywhere.search(words):
            return True
        return bool(self._alone.search(words) and self._all.fullmatch(words))


_COLOURS = (
    "aqua|blue|violet|green|yellow|orange|red|scarlet|crimson|lime|far|near|infra ?red|i ?r"
    "|n ?i ?r|uv|am ?cyan|pacific|e ?fluor|e ?f|af|alexa(?: fluor)?|bu?v|apc|per ?cp|pe|texas|cy"
)
_BACKGROUND = "ba|xe|cs|pb|sn|i|hg|os|ar"

_TIMES = _Rule(
    "time",
    "hdr t|t ?lsw|t ?msw",
    alone="time(?: ?stamp)?s?",
    beside="hdr|lsw|msw|sec|secs|seconds?|s|ms|msec|min|us|ns|ticks?|acq|acquisition|event|elapsed"
    "|rel|relative|abs|absolute|start|since|clock|t|i",
)
_TECHNICAL = (
    _Rule(
        "event or pulse parameter",
        "(?:roi|classifier|sort result|sort enable) bits?|drop phase|pulse ?width|hdr (?:ce|se|v)"
        "|event ?(?:length|count(?:er)?|number|num|no|nr|id|info)|cell ?length|time of flight",
        alone=r"events?|ev(?! \d)|length|cent(?:er|re)|offset|width|residual|amplitude"
        r"|doublets?|singlets?|tof|ids?(?! \d)|(?:object|image|cell) ?(?:number|num|no|count)",
        beside="trigger|pulse|event|index|number|num|no|of|object|image",
    ),
    _Rule(
        "computed",
        # groups of cells
        r"(?:meta|sub)? ?clust(?:er(?:s|ing|ed)?)?|(?:flow|embed) ?som|som (?:node|cluster)"
        "|r?pheno ?graph|x ?shift|flow ?means|flow ?peaks|accense|immuno ?clust|leiden|louvain"
        "|k ?means|dbscan|spade|citrus|cell ?types?"
        # embeddings and orders of cells
        r"|\w*sne|[du] ?map|umap|dens ?map|tri ?map|pa ?c ?map|phate|wanderlust|wishbone"
        "|pseudo ?time|palantir|diffusion"
        # barcodes and quality control
        r"|de ?barcod\w*|bc separation|separation dist(?:ance)?|mahalanobis|beads? ?t? ?dist"
        "|peaco ?qc|flow ?ai|flow ?clean|good ?vs ?bad|remove from fs"
        r"|scmoe\w*|proba|probability|outliers?",
        alone="labels?|populations?|pop|(?:un)?gate[ds]?|gating|annotations?|subsets?|phenotypes?"
        "|conditions?|samples?|files?|original|index|donors?|patients?|subjects?|tubes?|wells?"
        "|plates?|days?|batch(?:es)?|runs?|experiments?|cohorts?|treatments?|stimulation|replicates?"
        "|groups?|visits?|regions?|tiles?|images?|time ?points?|pca|ica"
        "|pc(?= [1-4]$)|dim(?:ension)?|component",
        beside="i ?ds?|no|nr|number|num|name|source|scattered|manual|of|is|in|index|event|count"
        "|code|bool",
    ),
    _Rule(
        "coordinate",
        "centroid|tray [xy]|coordinates?",
        alone="[xyz](?! [ahw]$)|coords?",
        beside="coords?|pos|position|cent(?:er|re)|loc|location|nucleus|nuclear|cell|um|µm|px"
        "|pixels?|global|local|tile|min|max|start|index",
        numbers=False,
    ),
    _Rule(
        "size or shape",
        "eccentricity|solidity|circularity|radial moment|cent(?:er|re) of mass|diffusivity"
        "|(?:long|short) axis moment|(?:major|minor) ?axis|aspect ratio|perimeter",
        alone="area|height|size|volume|diameter|radius|extent|orientation|roundness|elongation",
        beside="nucle(?:us|ar)|cytoplasm(?:ic)?|pixels?|um|µm|convex|filled|equivalent|mean|max|min"
        "|feret|m|mc",
    ),
)
_STAINS = (
    _Rule(
        "viability stain",
        r"live ?dead|dead ?live|dead(?! box)|alive|viab\w*|via(?:dye|krome|probe)"
        "|via (?:dye|krome|probe)|zombie|sytox|7 ?aad|aad|propidium(?: iodide)?|fvs|fvd|fixable"
        r"|ghost|amine(?! oxidase)|cis ?plat\w*|helix np|to ?pro|yo ?pro",
        alone="live|l ?d|l n d|l and d|aqua|vivid|vi ?vi ?d|a ?vi ?d",
        beside=f"{_COLOURS}|reactive|fluorescent|pt|rh|cisplatin|stain",
    ),
    _Rule(
        "viability stain", alone="pi", beside=f"{_COLOURS}|live|dead", only=FLUOR, numbers=False
    ),
    _Rule(
        "DNA stain",
        r"draq|intercal\w*|iridium|nuc(?:leic)? ?acid",
        alone="dna|dapi|hoechst|nuclei|sybr|syto",
        beside=f"{_COLOURS}|ir|rh|content|nuclear|cycle",
    ),
    _Rule("beads", r"\w*beads?|bead\w*"),
    _Rule(
        "beads",
        alone="eq",
        beside="ce|eu|ho|lu|elements?|four|six|calibration|normali[sz]ation|norm",
        only=MASS,
    ),
    _Rule("barcode", r"bar ?cod(?:e[sd]?|ing)|barcode\w*|bcode"),
    _Rule("barcode", "m?bc|mcb", only=MASS),
    _Rule(
        "without a stain",
        "empty|blank|unused|not used|unstained|no (?:antibody|ab|stain|marker)|noise"
        r"|back ?gr\w*|auto ?fluor\w*",
        alone="none|nothing|n a",
    ),
    _Rule("autofluorescence", alone="af|auto ?f", only=FLUOR, numbers=False),
    _Rule(
        "background of a metal",
        r"bc?kgd?|bckgrd|conta(?:m\w*)?|environ\w*|ar ar|arar|80 ar|ar 80|ar(?= 2$)|argon"
        "|xenon",
        alone="back|bg|bkg|lead|barium|cesium|caesium|iodine|tin",
        beside=_BACKGROUND,
        only=MASS,
    ),
)
_IRIDIUM = _Rule("DNA stain", alone="ir")
_CISPLATIN = _Rule("viability stain", alone="cis", beside="pt|plat")
_STAIN_NAMES = {rule.why for rule in _STAINS}
_FLUORESCENCE = Kind(FLUOR, "fluorescence")
_SCATTER = re.compile(
    r"(^|[^a-z])(v|b|y|yg|r|uv|n|p)?-?(fsc|ssc|bsc|fals|sals|mals|rals|lals)\d?w?a?h?($|[^a-z])"
    r"|\d(fsc|ssc|bsc)($|[^a-z])"
    r"|^(fs|ss)\d?([ _-]|$)"
    r"|(forward|side|back) ?sc|light ?loss|^extinction"
)
_NAMELESS = {
    True: _nothing_but(rf"{_Rule.NOTHING}|\d+"),
    False: _nothing_but(rf"{_Rule.NOTHING}|fl|{_COLOURS}|\d+"),
}
"""Words that are not the name of a marker, in mass cytometry (True) and in flow cytometry."""


def describe_channel(channel: str, marker: str, *, mass: bool) -> Kind:
    """Find the kind of a channel by its names.

    Parameters
    ----------
    channel
        Name of the channel on the instrument (``$PnN``).
    marker
        Name of the marker (``$PnS``), ``""`` for none.
    mass
        Whether the file comes from a mass cytometer, see :func:`is_mass_cytometer`.

    Returns
    -------
    The kind (``fluor``, ``mass``, ``scatter``, ``time`` or ``other``), and the reason.

    Notes
    -----
    Names are split into words: ``140Ce_EQ4_beads`` are beads, ``LDLR`` is not ``L/D``. Time,
    scatter, event parameters of the instrument and computed channels are found by either name.
    Stains of viability or DNA, beads, barcodes and background are found by the marker, and by the
    channel only if it has no marker: CD8 on the detector ``DAPI-A`` is CD8. ``IR``, ``BC1`` and
    ``EQ`` count in mass cytometry only, ``PI`` in fluorescence only.

    A metal without a marker stays ``mass``, since it may or may not have been stained.
    """
    names = [name.strip() for name in (marker, channel) if name.strip()]
    words = [_words(name, mass=mass) for name in names]
    if any(_TIMES.fits(text, mass=mass) for text in words):
        return Kind(TIME, _TIMES.why)
    for rule in _TECHNICAL:
        if any(rule.fits(text, mass=mass) for text in words):
            return Kind(OTHER, rule.why)
    if not mass and any(_SCATTER.search(name.lower()) for name in names):
        return Kind(SCATTER, "scatter")
    named = False
    # with an isotope, IR is the insulin receptor; CIS can be a protein as well
    rules = list(_STAINS)
    if mass and not any(_ISOTOPE.search(name) for name in names):
        rules.append(_IRIDIUM)
    if mass and any("pt" in name.lower() for name in names):
        rules.append(_CISPLATIN)
    for text in words:
        for rule in rules:
            if rule.fits(text, mass=mass):
                return Kind(OTHER, rule.why)
        if named := not _NAMELESS[mass].fullmatch(text):
            break
    if not mass:
        return _FLUORESCENCE
    return Kind(MASS, "metal" if named else "metal without the name of a marker")


def channel_kinds(
    channels: Sequence[str], markers: Sequence[str] | None = None, *, mass: bool | None = None
) -> list[str]:
    """Return the kinds of channels by their names, see :func:`describe_channel`.

    Parameters
    ----------
    channels
        Names of the channels.
    markers
        Names of the markers, ``""`` for none; by default no channel has one.
    mass
        Whether the instrument is a mass cytometer; by default judged by the names.
    """
    mass = is_mass_cytometer(channels) if mass is None else mass
    markers = [""] * len(channels) if markers is None else markers
    return [
        describe_channel(channel, marker, mass=mass).kind
        for channel, marker in zip(channels, markers, strict=True)
    ]


def is_detector(channel: str) -> bool:
    """Whether a channel of a flow cytometer measures fluorescence, stains of DNA included."""
    kind = describe_channel(channel, "", mass=False)
    return kind.kind == FLUOR or kind.why in _STAIN_NAMES


# "FITC-A", "FL1 INT LOG", "FL1-Peak-Lin", "FL1 LogH", "GRN-HLin"; glued to a filter: "450-50W"
_MEASURE = "area|int(?:egral)?|a|height|peak|h|width|tof|w|t"
_PULSE = re.compile(
    rf"(?P<base>.+?)(?:"
    rf"[-_ .](?P<m1>{_MEASURE})(?:[-_ .](?P<s1>lin|log))?"
    rf"|[-_ .](?P<s2>lin|log)[-_ .]?(?P<m2>{_MEASURE})?|[-_ .](?P<m3>[ahw])(?P<s3>lin|log)"
    rf"|(?:(?<=\d[-/]\d\d)|(?<=^fl\d)|(?<=^fl\d\d))(?P<m4>[ahw]))?",
    re.IGNORECASE | re.DOTALL,
)
_COMPENSATED = re.compile(r"(?:fj[-_ ]?)?comp[-_ ](?P<name>.+)|<(?P<angled>.+)>", re.IGNORECASE)
_RANKS = {"a": 0, "i": 0, "": 1, "h": 2, "p": 2, "w": 3, "t": 3}
_MEASURES = ("area", "", "height", "width")


class _Measure(NamedTuple):
    """Detector of a channel, and the measure of its pulse (area, height, width)."""

    detector: str
    rank: int
    scale: str
    compensated: bool

    @classmethod
    def of(cls, name: str) -> _Measure:
        """Parse the name of a channel."""
        compensated = _COMPENSATED.fullmatch(name)
        if compensated:
            name = compensated["name"] or compensated["angled"]
        parts = _PULSE.fullmatch(name).groupdict(default="")
        rank = _RANKS["".join(parts[f"m{i}"] for i in range(1, 5)).lower()[:1]]
        scale = "".join(parts[f"s{i}"] for i in range(1, 4)).lower()
        return cls(parts["base"].casefold(), rank, scale, bool(compensated))

    def __str__(self) -> str:
        scale = {"lin": "linear", "log": "logarithmic"}.get(self.scale, "")
        said = ("compensated" if self.compensated else "", scale, _MEASURES[self.rank])
        return " ".join(filter(None, said)) or "another measure"


def mark_copies(
    channels: Sequence[str], markers: Sequence[str], kinds: Sequence[Kind], pne: Sequence[str]
) -> list[Kind]:
    """Mark channels as ``copy`` that measure the detector of another channel again.

    Of the channels of a detector one stays the marker: the one with the name of a marker, else
    the one stored as logarithms (``$PnE``; linear copies are coarse for dim cells), else the
    compensated one, else the area, else the height.

    Parameters
    ----------
    channels, markers
        ``$PnN`` and ``$PnS``.
    kinds
        From :func:`describe_channel`, or from an earlier call.
    pne
        ``$PnE``.
    """
    kinds = [_FLUORESCENCE if kind == COPY else Kind(kind, why) for kind, why in kinds]
    measures = [_Measure.of(channel) for channel in channels]
    groups: dict[str, list[int]] = {}
    for i, measure in enumerate(measures):
        if kinds[i].kind == FLUOR or kinds[i].why in _STAIN_NAMES:
            groups.setdefault(measure.detector, []).append(i)
    for group in groups.values():
        labels = {i: _label(markers[i], measures[i].detector) for i in group}
        # with two markers, or one channel twice, none is known to be a copy of the other
        if len(set(labels.values()) - {""}) > 1 or len({measures[i] for i in group}) < len(group):
            continue
        ranks = {}
        for i in group:
            _, rank, scale, compensated = measures[i]
            decades = re.match(r"[\s0.]*(?:,|$)", pne[i]) is None
            ranks[i] = (
                not labels[i],
                not decades,
                scale == "log" and not decades,
                not compensated,
                rank,
            )
        first = min(group, key=ranks.get)
        for i in group:
            if i != first and kinds[i].kind == FLUOR:
                kinds[i] = Kind(COPY, f"{measures[i]}; {channels[first]} is the marker")
    return kinds


def _label(marker: str, detector: str) -> str:
    """Return the name of a marker without its measure; ``""`` if it is the name of a detector."""
    label = _Measure.of(marker).detector if marker else ""
    return "" if label == detector or re.fullmatch(r"fl *\d+", label) else label


def variable_names(channels: Sequence[str], markers: Sequence[str]) -> list[str]:
    """Return unique names of variables: the marker, else the channel.

    Repeated markers become ``"marker (channel)"``, repeated channels are numbered: ``"FL1-A-2"``.
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
