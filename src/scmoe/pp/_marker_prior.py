"""Assign cells to classes by known markers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.keys import Key
from scmoe._core.text import listing

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scmoe")

SIGNS = {"+": 1, "-": -1}
"""Suffixes of a gene, and the sign of its expression in the class."""


def marker_prior(
    adata: AnnData,
    markers: Mapping[str, str | Sequence[str]] | pd.DataFrame,
    *,
    layer: str | None = None,
    combine: Literal["all", "mean"] = "all",
    shared: bool = False,
    key_added: str = Key.obsm.PRIOR,
    copy: bool = False,
) -> AnnData | None:
    """Find the cells that express the markers of a class: a prior for the clustering.

    The rule of the MoE-Sim-VAE paper for mouse organs: a cell is positive for a gene if its
    expression is above the average of the gene over all cells. A cell that is positive for
    exactly one class is *certain*; :class:`scmoe.similarity.Prior` teaches the model with
    these.

    Parameters
    ----------
    adata
        Cells x genes, dense or sparse; log-normalised or arcsinh values, say.
    markers
        The gene or genes of each class: ``{"B": "Cd79a", "T": ["Cd3e", "Cd79a-"]}``. A gene
        that ends in ``-`` must not be above its average; ``+`` is the default. A name is first
        looked up unchanged, so genes whose names end in a sign can be used.

        Or a knowledge table as in scyan: a DataFrame with a row for each class, a column for each
        gene, and 1 (positive), -1 (negative), 0 or NaN (no statement).
    layer
        Layer to use instead of ``.X``.
    combine
        ``"all"``: a cell belongs to a class if every gene agrees. ``"mean"``: if the mean of
        the signed standardised values of its genes is above 0, which is better for several
        genes in sparse data. With one positive gene the two are the same.
    shared
        Allow a gene to be positive in several classes of a mapping, which then must differ in
        their other genes. A DataFrame always allows this.
    key_added
        Name of the slots that are written.
    copy
        Return an annotated copy and leave ``adata`` unchanged.

    Returns
    -------
    None, or the copy. Writes

    ``.obsm[key_added]``
        DataFrame cells x classes, float32 of 0 and 1.
    ``.uns[key_added]``
        ``params`` (``combine``, ``layer``, ``shared``), ``classes`` and ``markers`` (for each
        class its genes with their signs, such as ``"Cd3e+, Cd79a-"``), ``certain`` (certain
        cells of each class), and ``n_certain``, ``n_ambiguous`` (positive for several
        classes), ``n_negative`` (for none).

    Raises
    ------
    KeyError
        An unknown gene or layer.
    ValueError
        Fewer than two classes; a class without a gene; a gene named twice in a class, or
        positive in two without ``shared``; two classes with the same genes; a gene that is
        constant, or holds NaN or infinite values; no certain cell; a view or a file on disk.

    Warns
    -----
    UserWarning
        A class for which no cell is certain.
    """
    check_adata(adata)
    if combine not in ("all", "mean"):
        raise ValueError(f'`combine` must be "all" or "mean", got {combine!r}.')
    if not isinstance(key_added, str) or not key_added:
        raise ValueError(f"`key_added` must be a name, got {key_added!r}.")
    if key_added in adata.uns and "n_certain" not in adata.uns[key_added]:
        raise ValueError(
            f"`key_added={key_added!r}` would overwrite `.uns[{key_added!r}]`, which is not a "
            "marker prior; choose another name."
        )
    values = layer_values(adata, layer)
    if isinstance(markers, pd.DataFrame):
        statements = _from_table(markers, adata.var_names)
    else:
        statements = _from_mapping(markers, adata.var_names)
    _check_statements(statements, shared or isinstance(markers, pd.DataFrame))

    genes = list(dict.fromkeys(gene for genes in statements.values() for gene in genes))
    standardised = _standardised(values, adata.var_names, genes)
    signs = np.array(
        [[statement.get(gene, 0) for gene in genes] for statement in statements.values()]
    )
    positive = _positive(standardised, signs, combine)

    n_classes = positive.sum(axis=1)
    certain = positive[n_classes == 1].sum(axis=0)
    if not certain.any():
        raise ValueError(
            f"No cell is certain: {np.count_nonzero(n_classes == 0)} are positive for no class, "
            f"{np.count_nonzero(n_classes > 1)} for several. Check the markers"
            + (', or try `combine="mean"`.' if combine == "all" else ".")
        )
    without = [name for name, n in zip(statements, certain, strict=True) if n == 0]
    if without:
        warnings.warn(
            f"No cell is certain for {listing(without)}: every cell that is positive for it, if "
            "any, is positive for another class too. Nothing will be learned about it.",
            UserWarning,
            stacklevel=2,
        )
    counts = {
        "n_certain": int(certain.sum()),
        "n_ambiguous": int(np.count_nonzero(n_classes > 1)),
        "n_negative": int(np.count_nonzero(n_classes == 0)),
    }
    logger.info(
        "Marker prior of %d classes: %d cells certain, %d ambiguous, %d negative.",
        len(statements),
        *counts.values(),
    )
    params = {"combine": combine, "shared": bool(shared)} | ({"layer": layer} if layer else {})
    record = {
        "params": params,
        "classes": np.array(list(statements), dtype=object),
        "markers": np.array([_statement_text(s) for s in statements.values()], dtype=object),
        "certain": certain.astype(np.int64),
        **counts,
    }
    prior = pd.DataFrame(
        positive.astype(np.float32), index=adata.obs_names, columns=list(statements)
    )
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = prior
    adata.uns[key_added] = record
    return adata if copy else None


def _from_mapping(markers: Any, known: pd.Index) -> dict[str, dict[str, int]]:
    """Return the sign of each gene of each class."""
    if not isinstance(markers, Mapping):
        raise ValueError(
            "`markers` must be a mapping of classes to genes or a DataFrame, not "
            f"{type(markers).__name__}."
        )
    statements, unknown = {}, []
    for name, given in markers.items():
        genes = [given] if isinstance(given, str) else given
        if not pd.api.types.is_list_like(genes) or not all(isinstance(g, str) for g in genes):
            raise ValueError(f"Class {str(name)!r} must have a list of genes, got {given!r}.")
        found = {}
        for gene in genes:
            resolved = _resolve(gene, known)
            if resolved is None:
                unknown.append(gene)
                continue
            stem, sign = resolved
            if stem in found:
                how = "twice" if found[stem] == sign else "as positive and as negative"
                raise ValueError(f"Class {str(name)!r} names {stem!r} {how}.")
            found[stem] = sign
        statements[name] = found
    _check_known(unknown, known)
    return _by_class_name(statements)


def _resolve(gene: str, known: pd.Index) -> tuple[str, int] | None:
    """Return the gene and its sign; a known name wins, for genes such as ``HLA-``."""
    if gene in known:
        return gene, 1
    if gene[-1:] in SIGNS and gene[:-1] in known:
        return gene[:-1], SIGNS[gene[-1]]
    return None


def _from_table(table: pd.DataFrame, known: pd.Index) -> dict[str, dict[str, int]]:
    """Return the sign of each gene of each class."""
    for axis, names in (("rows", table.index), ("columns", table.columns)):
        if not names.is_unique:
            twice = list(names[names.duplicated()].unique())
            raise ValueError(f"`markers` has {axis} of the same name: {listing(twice)}.")
    _check_known([gene for gene in table.columns if gene not in known], known)
    signs = table.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    bad = ~signs.isin([-1, 0, 1]) & table.notna()
    if bad.to_numpy().any():
        row, column = (int(i[0]) for i in np.nonzero(bad.to_numpy()))
        raise ValueError(
            "`markers` must hold 1, -1, 0 or NaN; it holds "
            f"{str(table.iat[row, column])!r} for {str(table.columns[column])!r} of class "
            f"{str(table.index[row])!r}."
        )
    return _by_class_name(
        {
            name: {gene: int(sign) for gene, sign in row.items() if sign in (-1, 1)}
            for name, row in signs.iterrows()
        }
    )


def _by_class_name(statements: dict[Any, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return the statements by class as str; ValueError for names that h5ad files cannot hold."""
    names = [str(name) for name in statements]
    bad = [name for name in names if not name or "/" in name]
    if bad or len(set(names)) < len(names):
        raise ValueError(
            "Names of classes must differ, must not be empty and must not hold '/', which h5ad "
            f"files do not allow; got {listing(bad or names)}."
        )
    return dict(zip(names, statements.values(), strict=True))


def _check_known(unknown: list, known: pd.Index) -> None:
    if not unknown:
        return
    lower = {str(name).lower(): str(name) for name in known}
    said = []
    for gene in dict.fromkeys(map(str, unknown)):
        close = [lower[c] for c in get_close_matches(gene.lower().rstrip("+-"), lower, n=3)]
        said.append(repr(gene) + (f" (did you mean {' or '.join(close)}?)" if close else ""))
    raise KeyError(f"Did not find these genes in `.var_names`: {', '.join(said)}.")


def _check_statements(statements: dict[str, dict[str, int]], shared: bool) -> None:
    """Raise ValueError for classes that cannot be distinguished."""
    if len(statements) < 2:
        raise ValueError(f"`markers` must name at least two classes, got {len(statements)}.")
    seen, owner = {}, {}
    for name, statement in statements.items():
        if not statement:
            raise ValueError(f"Class {name!r} has no gene; in a table 0 and NaN say nothing.")
        twin = seen.setdefault(frozenset(statement.items()), name)
        if twin != name:
            raise ValueError(f"Classes {twin!r} and {name!r} have the same markers.")
        for gene in (gene for gene, sign in statement.items() if sign > 0):
            first = owner.setdefault(gene, name)
            if first != name and not shared:
                raise ValueError(
                    f"{gene!r} is a marker of {first!r} and of {name!r}: cells that express it "
                    "belong to both. If the classes are told apart by their other genes, pass "
                    "`shared=True`."
                )


def _statement_text(statement: dict[str, int]) -> str:
    return ", ".join(f"{gene}{'+' if sign > 0 else '-'}" for gene, sign in statement.items())


def _standardised(values: Any, known: pd.Index, genes: list[str]) -> np.ndarray:
    """Return standardised values of some genes, ``(n_obs, m)`` float64."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"The values are {values.dtype}, not numbers.")
    x = values[:, known.get_indexer(genes)]
    x = np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float64)
    bad = ~np.isfinite(x).all(axis=0)
    if bad.any():
        raise ValueError(
            f"NaN or infinite values in {listing(np.array(genes)[bad].tolist())}; an average of "
            "them means nothing. Remove these cells or replace the values."
        )
    # not the standard deviation, which rounding can leave above 0
    constant = np.ptp(x, axis=0) == 0
    if constant.any():
        raise ValueError(
            f"Constant in all cells, so never above average: "
            f"{listing(np.array(genes)[constant].tolist())}."
        )
    x = x - x.mean(axis=0)
    return x / x.std(axis=0)


def _positive(standardised: np.ndarray, signs: np.ndarray, combine: str) -> np.ndarray:
    """Return the positive cells of each class, ``(n_obs, C)`` bool; `signs` is ``(C, m)``."""
    if combine == "mean":
        return standardised @ signs.T > 0
    above = standardised > 0
    return np.stack(
        [(above[:, sign != 0] == (sign[sign != 0] > 0)).all(axis=1) for sign in signs], axis=1
    )
