"""JSON and tensors in files: plain to write, read with suspicion."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from anndata import AnnData

MAX_JSON = 256 * 2**20
"""Bytes of the largest JSON file that is read."""

PICKLES = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
"""How pickles begin, and the zip archives that torch puts them in."""


class ModelFileError(ValueError):
    """A saved model that can't be used as it is."""


class SaveError(OSError):
    """A model was not saved, but the clusters are there.

    Attributes
    ----------
    adata
        The cells with their clusters.
    """

    def __init__(self, message: str, adata: AnnData) -> None:
        super().__init__(message)
        self.adata = adata


def json_bytes(schema: str, version: int, value: dict[str, Any]) -> bytes:
    """Plain values as JSON under a schema, with a hash that tells damage.

    ModelFileError for more than would be read again.
    """
    head = {"schema": schema, "schema_version": version, "sha256": checksum(value)}
    data = json.dumps({**head, **value}, allow_nan=False).encode()
    if len(data) > MAX_JSON:
        raise ModelFileError(
            f"The description is {len(data):,} bytes of JSON, more than the {MAX_JSON:,} that are "
            "read again."
        )
    return data


def checksum(value: dict[str, Any]) -> str:
    """Return the hash of plain values; writing and reading does not change it."""
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()


def read_json(path: Path, schema: str, version: int, keys: Mapping[str, type]) -> dict[str, Any]:
    """Read a JSON object of a schema with exactly these further keys, of these types.

    Earlier versions of a schema are read too.

    Raises
    ------
    ModelFileError
        No file, a pickle (which is not opened), too large, no JSON, another schema or a version
        that is not known, damaged, other keys or types.
    """
    if not path.is_file():
        raise ModelFileError(f"{str(path)!r} is missing.")
    if path.stat().st_size > MAX_JSON:
        raise ModelFileError(
            f"{str(path)!r} has {path.stat().st_size:,} bytes; at most {MAX_JSON:,} are read."
        )
    data = path.read_bytes()
    _check_no_pickle(path, data)
    try:
        value = json.loads(data, parse_constant=_no_constant, object_pairs_hook=_unique)
        _take_schema(path, value, schema, version)
        intact = value.pop("sha256", None) == checksum(value)
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{str(path)!r} is truncated or no JSON: {error}") from error
    if not intact:
        raise ModelFileError(f"{str(path)!r} is not the file that was saved: it is damaged.")
    check_keys(value, keys, repr(str(path)))
    return value


def _take_schema(path: Path, value: Any, schema: str, version: int) -> None:
    """Take the schema and its version off a description; ModelFileError for others."""
    if not isinstance(value, dict):
        raise ModelFileError(f"{str(path)!r} is a JSON {type(value).__name__}, not an object.")
    found = value.pop("schema", None)
    if found != schema:
        raise ModelFileError(f"{str(path)!r} is no {schema}: its schema is {found!r}.")
    number = value.pop("schema_version", None)
    if type(number) is int and number > version:
        raise ModelFileError(
            f"{str(path)!r} was written by a newer scmoe (version {number} of the schema, this "
            f"one knows {version}). Update scmoe."
        )
    if type(number) is not int or number < 1:
        raise ModelFileError(f"{str(path)!r} has the unknown version {number!r} of the schema.")


def check_keys(value: dict[str, Any], keys: Mapping[str, type], where: str) -> None:
    """ModelFileError unless a dict has exactly these keys, with values of these types."""
    missing, extra = sorted(keys.keys() - value.keys()), sorted(value.keys() - keys.keys())
    if missing or extra:
        raise ModelFileError(f"{where} lacks the keys {missing} and has {extra} beside.")
    for key, kind in keys.items():
        if type(value[key]) is not kind:
            raise ModelFileError(
                f"{where}: {key!r} must be {kind.__name__}, it is {type(value[key]).__name__}."
            )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _check_no_pickle(path: Path, data: bytes) -> None:
    if data.startswith(PICKLES):
        raise ModelFileError(
            f"{str(path)!r} is a pickle. Pickles can run programs, so they are never opened."
        )


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, Any]]:
    """Tensors as the bytes of a safetensors file, and what describes them.

    The description holds ``sha256`` and ``bytes`` of the file, and ``shape`` and ``dtype`` of
    every tensor by its name.
    """
    # torch takes seconds to load, and the errors above are named where no tensor is
    import torch
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    data = save(tensors)
    return data, {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "tensors": {name: describe(tensor) for name, tensor in tensors.items()},
    }


def describe(tensor: torch.Tensor) -> dict[str, Any]:
    """Shape and dtype as plain values."""
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def unpack_tensors(path: Path, description: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file, on the CPU; they must be those of a description.

    Raises
    ------
    ModelFileError
        No file, a pickle (which is not opened), a truncated file, the file of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_keys(description, {"sha256": str, "bytes": int, "tensors": dict}, "The tensors' record")
    if not path.is_file():
        raise ModelFileError(f"{str(path)!r} is missing.")
    with path.open("rb") as file:
        _check_no_pickle(path, file.read(4))
        size = path.stat().st_size
        if size != description["bytes"]:
            kind = "truncated" if size < description["bytes"] else "of another model"
            raise ModelFileError(
                f"{str(path)!r} has {size:,} bytes instead of {description['bytes']:,}: it is "
                f"{kind}."
            )
        file.seek(0)
        data = file.read()
    if hashlib.sha256(data).hexdigest() != description["sha256"]:
        raise ModelFileError(
            f"{str(path)!r} is not the file that was saved: it is damaged, or of another model."
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ModelFileError(f"{str(path)!r} holds no tensors: {error}") from error
    if {name: describe(tensor) for name, tensor in tensors.items()} != description["tensors"]:
        raise ModelFileError(f"{str(path)!r} holds other tensors than its record says.")
    return tensors
