"""The report: one HTML page with all its pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from scipy.sparse import issparse

from scmoe._core.keys import Key
from scmoe._core.signatures import UNASSIGNED, effects, measured_markers, standing_out
from scmoe._core.text import visible
from scmoe._core.values import fcs_keywords
from scmoe.get import MAX_GATE_CELLS, gates
from scmoe.io import added_channels
from scmoe.pl import MAP

from . import _pictures as pictures
from ._settings import MODELS
from ._tables import CONSENSUS, abundance, highest_probability, most_different, samples_of

if TYPE_CHECKING:
    from anndata import AnnData

    from ._settings import Settings

MOST_SAMPLES = 100
"""Largest number of listed samples."""

MOST_NAMED = 5
"""Largest number of files that a repair names."""

SURE = 0.9
"""Highest probability above which a cell counts as sure."""

_LIBRARIES = ("scmoe", "anndata", "scanpy", "scvi-tools", "torch", "numpy", "openTSNE")
_GREY = "#bbbbbb"

HARMLESS = (
    "one byte late",
    "the one that $TOT events fit",
    "belong to no segment",
    "last delimiter of TEXT is missing",
    "begins with blanks",
    "were removed",
    "more than once, with one value",
    "HEADER does not say where DATA lies",
    "TEXT does not say where DATA lies; HEADER does",
    "; there is none",
)
"""Parts of the texts of repairs that are unambiguous and change no value."""

_OF_REPAIRS = "files disagree with the FCS standard"
"""Part of the warning of repairs; the page lists the repairs instead."""


def write_report(
    path: Path,
    adata: AnnData,
    *,
    table: pd.DataFrame,
    markers: list[str],
    shown: AnnData | None,
    basis: str,
    settings: Settings,
    facts: Mapping[str, str],
    warnings: list[str],
    has_fcs: bool = False,
) -> None:
    """Write the page of a clustering.

    Parameters
    ----------
    path
        The HTML file.
    adata
        Clustered cells.
    table
        The table of :func:`cluster_table`.
    markers
        The markers that were clustered by.
    shown
        The cells of the map; None for no map.
    basis
        Key of the map in their ``.obsm``.
    settings
        The settings of the run.
    facts
        Decisions of the run, by name.
    warnings
        The warnings of the run.
    has_fcs
        Whether FCS files with the clusters were written.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    template = environment.from_string(
        files("scmoe.cli").joinpath("report.html").read_text(encoding="utf-8")
    )
    key = settings.key
    effect = effects(adata, key, measured_markers(adata, markers), settings.layer)
    images = _draw_images(adata, effect, markers, table["share"], shown, basis, settings)
    read = _file_rows(adata)
    colours = _colours(adata, key)
    page = template.render(
        title=_title(settings),
        version=version("scmoe"),
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        key=key,
        numbers=_numbers(adata, markers, key),
        warnings=[text for text in warnings if _OF_REPAIRS not in text],
        model_class=MODELS[settings.model],
        has_consensus=CONSENSUS in table,
        has_names=(table["name"] != table.index).any(),
        clusters=_cluster_rows(table, effect[markers], colours),
        gates=_gate_rows(adata, key, colours),
        samples=_sample_rows(adata, key, colours),
        command=settings.command,
        images=images,
        map_cells=0 if shown is None else shown.n_obs,
        map_method="t-SNE" if basis == MAP else "UMAP",
        n_cells=adata.n_obs,
        looked_at=MAX_GATE_CELLS,
        in_store=not isinstance(adata.X, np.ndarray) and not issparse(adata.X),
        confidence=_confidence(adata, key),
        files=read,
        settings=_settings_rows(settings, markers, facts),
        parameters=_parameters(adata, key),
        manifest=_versions(adata, key),
        has_outlier=Key.obs.outlier(key) in adata.obs,
        has_fcs=has_fcs,
        codes=_codes(adata, key),
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _finalize(value: Any) -> Any:
    """Escape control and bidirectional characters of a text; markup stays."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _title(settings: Settings) -> str:
    names = [os.path.basename(name.rstrip("/\\")) or name for name in settings.files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _numbers(adata: AnnData, markers: list[str], key: str) -> dict[str, str]:
    sure = (highest_probability(adata, key) > SURE).mean()
    numbers = {"cells": f"{adata.n_obs:,}"}
    samples = samples_of(adata)
    if samples is not None:
        numbers["samples"] = f"{samples.nunique():,}"
    numbers["markers"] = f"{len(markers):,}"
    numbers["clusters"] = f"{adata.uns[key]['n_clusters']:,}"
    numbers[f"cells with p > {SURE:g}"] = f"{100 * sure:.0f} %"
    return numbers


def _colours(adata: AnnData, key: str) -> dict[str, str]:
    names = [str(name) for name in adata.obs[key].cat.categories]
    return dict(zip(names, map(str, adata.uns[f"{key}_colors"]), strict=False))


def _draw_images(
    adata: AnnData,
    effect: pd.DataFrame,
    markers: list[str],
    shares: pd.Series,
    shown: AnnData | None,
    basis: str,
    settings: Settings,
) -> dict[str, Any]:
    """Return the pictures of the page, by name."""
    key, layer = settings.key, settings.layer
    images: dict[str, Any] = {}
    if shown is not None:
        images["map"] = pictures.map_by(shown, basis, shown.obs[key])
        samples = samples_of(shown)
        # more samples have no distinct colours
        if samples is not None and 1 < samples.nunique() <= pictures.MOST_SAMPLES:
            images["map_by_sample"] = pictures.map_by(shown, basis, samples, on_map=False)
        chosen = most_different(effect[markers], shares, pictures.MOST_MAPS)
        images["map_by_marker"] = {
            name: pictures.map_by_marker(shown, basis, name, layer) for name in chosen
        }
    in_heat_map = most_different(effect, shares, pictures.MOST_COLUMNS)
    images["not_used"] = [name for name in in_heat_map if name not in set(markers)]
    images["heat_map"] = pictures.heat_map(adata, key, in_heat_map, layer)
    if _has_splits(adata, key):
        images["tree"] = pictures.tree(adata, key)
    images["confidence"] = pictures.confidence(adata, key)
    images["confidence_by_cluster"] = pictures.confidence_by_cluster(adata, key)
    images["loss"] = pictures.loss(adata.uns[key]["history"])
    return images


def _cluster_rows(
    table: pd.DataFrame, effect: pd.DataFrame, colours: dict[str, str]
) -> list[dict[str, Any]]:
    """Return size, probability, and high and low markers of each cluster."""
    found = standing_out(effect)
    largest = table["share"].max()
    return [
        {
            "cluster": name,
            "name": row["name"] if row["name"] != name else "",
            "colour": colours.get(name, _GREY),
            "cells": f"{int(row['cells']):,}",
            "share": _percent(row["share"]),
            "width": f"{100 * row['share'] / largest:.1f}",
            "probability": f"{row['median_probability']:.2f}",
            "consensus": _two_digits(row.get(CONSENSUS)),
            "high": found[name].high,
            "low": found[name].low,
        }
        for name, row in table.iterrows()
    ]


def _has_splits(adata: AnnData, key: str) -> bool:
    """Return whether the clusters follow a tree with more than one population."""
    return len(adata.uns[key].get("tree", {}).get("threshold", ())) > 0


def _gate_rows(adata: AnnData, key: str, colours: dict[str, str]) -> list[dict[str, str]]:
    """Return the gates of each cluster, empty without a tree."""
    if not _has_splits(adata, key):
        return []
    return [
        {
            "cluster": name,
            "colour": colours.get(name, _GREY),
            "gates": row["gates"],
            "f1": _two_digits(row["f1"]),
        }
        for name, row in gates(adata, key).iterrows()
    ]


def _two_digits(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


def _sample_rows(adata: AnnData, key: str, colours: dict[str, str]) -> dict[str, Any] | None:
    """Return the shares of the clusters in each sample, None for a single sample."""
    table = abundance(adata, key)
    sizes = table.groupby("sample", sort=False)["cells"].sum()
    if len(sizes) < 2:
        return None
    order = list(dict.fromkeys(table["cluster"]))
    shares = table.pivot(index="sample", columns="cluster", values="share")
    shares = shares.loc[sizes.index, order]
    rows = [
        {
            "name": name,
            "cells": f"{sizes[name]:,}",
            "parts": [
                {"cluster": c, "width": f"{100 * s:.3f}", "colour": colours.get(c, _GREY)}
                for c, s in row.items()
                if s > 0
            ],
            "shares": [f"{100 * share:.1f}" for share in row],
        }
        for name, row in shares.iloc[:MOST_SAMPLES].iterrows()
    ]
    legend = [{"cluster": c, "colour": colours.get(c, _GREY)} for c in shares.columns]
    return {"rows": rows, "legend": legend, "left_out": max(len(shares) - MOST_SAMPLES, 0)}


def _confidence(adata: AnnData, key: str) -> list[str]:
    """Return sentences on the highest probabilities of the cells."""
    values = highest_probability(adata, key)
    told = [
        f"{_percent((values > SURE).mean())} of the cells belong to their cluster with a "
        f"probability above {SURE:g}, {_percent((values < 0.5).mean())} with less than 0.5."
    ]
    missing = adata.obs[key].isna()
    if missing.any():
        told.append(f"{int(missing.sum()):,} cells ({_percent(missing.mean())}) have no cluster.")
    return told


def _file_rows(adata: AnnData) -> dict[str, Any]:
    """Return the files, and each of their repairs once: relevant and harmless ones."""
    records = adata.uns.get(Key.uns.FCS, {})
    if Key.obs.SAMPLE not in adata.obs:
        return {"rows": [], "repairs": [], "harmless": []}
    counts = adata.obs[Key.obs.SAMPLE].astype("category").value_counts(sort=False)
    rows, repaired = [], {}
    for sample, count in counts.items():
        record = records.get(str(sample), {})
        # the record may be of another program
        ours = isinstance(record.get("keywords"), pd.DataFrame)
        repairs = list(record.get("repairs", []))
        for repair in repairs:
            repaired.setdefault(str(repair), []).append(str(sample))
        rows.append(
            {
                "sample": str(sample),
                "file": record.get("file", ""),
                "cells": f"{count:,}",
                "version": record.get("version", ""),
                "instrument": fcs_keywords(record).get("cyt", "") if ours else "",
                "spillover": _spillover(record),
                "repairs": len(repairs),
            }
        )
    told = [
        {
            "text": text,
            "samples": [] if len(s) == len(rows) > 1 else s[:MOST_NAMED],
            "left_out": 0 if len(s) == len(rows) > 1 else max(len(s) - MOST_NAMED, 0),
        }
        for text, s in repaired.items()
    ]
    harmless = [any(part in repair["text"] for part in HARMLESS) for repair in told]
    return {
        "rows": rows[:MOST_SAMPLES],
        "repairs": [r for r, h in zip(told, harmless, strict=True) if not h],
        "harmless": [r for r, h in zip(told, harmless, strict=True) if h],
        "other_names": any(Path(row["file"]).stem not in ("", row["sample"]) for row in rows),
        "left_out": max(len(rows) - MOST_SAMPLES, 0),
    }


def _spillover(record: Mapping[str, Any]) -> str:
    """Return in words whether a file has a spillover matrix."""
    told = []
    if "spillover" in record:
        told.append("yes")
    if "spillover_unusable" in record:
        told.append("not usable")
    if "subtracted" in record:
        told.append("subtracted by the instrument")
    return ", ".join(told) or "no"


def _settings_rows(
    settings: Settings, markers: list[str], facts: Mapping[str, str]
) -> dict[str, str]:
    """Return the settings and the decisions of the run, by name."""
    told = {
        "files": ", ".join(settings.files),
        "markers": ", ".join(markers[:200]) + (", ..." if len(markers) > 200 else ""),
        **facts,
        "compensated": "yes" if settings.compensates else "no",
        "files with different markers": settings.join,
        "seed": str(settings.seed),
    }
    for name in ("preset", "layer", "batch_key", "max_epochs"):
        if getattr(settings, name) is not None:
            told[name.replace("_", " ")] = str(getattr(settings, name))
    return told


def _parameters(adata: AnnData, key: str) -> dict[str, str]:
    """Return the parameters of the clustering, but its graph, which is among the settings."""
    params = adata.uns[key]["params"].items()
    return {name: _text(value) for name, value in params if name != "neighbors"}


def _versions(adata: AnnData, key: str) -> dict[str, str]:
    """Return versions and hashes of the clustering; without them, the versions in use."""
    told = {}
    for name, value in adata.uns[key].get("manifest", {}).items():
        parts = value if isinstance(value, Mapping) else {name: value}
        told |= {str(part): _text(content) for part, content in parts.items()}
    return told or {"python": python_version(), **{name: version(name) for name in _LIBRARIES}}


def _text(value: Any) -> str:
    """Return a value as text, mappings as JSON."""
    if not isinstance(value, Mapping):
        return str(value)
    return json.dumps(
        value,
        ensure_ascii=False,
        default=lambda part: part.tolist() if hasattr(part, "tolist") else str(part),
    )


def _codes(adata: AnnData, key: str) -> list[tuple[str, int]]:
    """Return names and numbers of the clusters in FCS files, empty where they are the same."""
    labels, *_ = added_channels(adata, (key,))
    codes = labels.codes or {}
    if all(name == str(code) for code, name in codes.items()):
        return []
    return [(UNASSIGNED if name is None else name, code) for code, name in codes.items()]
