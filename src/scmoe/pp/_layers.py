"""What the transforms of values share: which matrix is meant, and whether it may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scmoe._checks import check_is_adata

if TYPE_CHECKING:
    from anndata import AnnData


def check_adata(adata: AnnData) -> None:
    """Raise ValueError for what is no AnnData, for a view, and for variables of one name."""
    check_is_adata(adata)
    if adata.is_view:
        raise ValueError("`adata` is a view of another AnnData; pass `adata.copy()` instead.")
    if not adata.var_names.is_unique:
        raise ValueError(".var_names are not unique; run `adata.var_names_make_unique()`.")


def where(name: str) -> str:
    """Return how a user writes the matrix of a record: ``"X"`` is ``.X``, others are layers."""
    return ".X" if name == "X" else f".layers[{name!r}]"


def source(adata: AnnData, layer: str | None) -> Any:
    """Return ``.X`` or a layer; KeyError if there is none such, ValueError for no numbers."""
    if layer is None:
        values = adata.X
        if values is None:
            raise ValueError("`adata` has no .X; name a layer with `layer=`.")
    elif layer in adata.layers:
        values = adata.layers[layer]
    else:
        raise KeyError(f"no layer {layer!r} in .layers; there are {sorted(adata.layers)}")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{where(layer or 'X')} holds {values.dtype}, not numbers.")
    return values
