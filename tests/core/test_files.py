"""Folders are written whole or not at all."""

from __future__ import annotations

import pytest
import torch

from scmoe._core import files
from scmoe._core.files import ModelFileError, json_bytes, pack_tensors, read_json, unpack_tensors


def test_hash_survives_writing_and_reading(tmp_path):
    value = {"a": {"x": [0.1, 1e-320, -0.0, 2**200, "ä\udcff", None, True], "": {}}}
    (tmp_path / "x.json").write_bytes(json_bytes("thing", 1, value))
    assert read_json(tmp_path / "x.json", "thing", 1, {"a": dict}) == value


def test_json(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(json_bytes("thing", 2, {"a": 1}))
    assert read_json(path, "thing", 2, {"a": int}) == {"a": 1}
    monkeypatch.setattr(files, "MAX_JSON", 10)
    with pytest.raises(ModelFileError, match=r"bytes; at most 10 are read"):
        read_json(path, "thing", 2, {"a": int})
    with pytest.raises(ModelFileError, match="more than the 10"):
        json_bytes("thing", 2, {"a": 1})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "truncated or no JSON"),
        ('{"schema": "thing", "schema_ver', "truncated or no JSON"),
        ("[" * 100_000, "truncated or no JSON"),
        ("[1]", "is a JSON list"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "a": 2}', "a key occurs twice"),
        ('{"a": 1' + "0" * 5000 + "}", "truncated or no JSON"),
        ('{"schema": "other", "schema_version": 2, "a": 1}', "is no thing: its schema is 'other'"),
        ('{"schema_version": 2, "a": 1}', "is no thing: its schema is None"),
        ('{"schema": "thing", "schema_version": 3, "b": 1}', "newer scmoe .*version 3"),
        ('{"schema": "thing", "schema_version": 0, "a": 1}', "unknown version 0"),
        ('{"schema": "thing", "schema_version": true, "a": 1}', "unknown version True"),
        ('{"schema": "thing", "schema_version": "2", "a": 1}', "unknown version '2'"),
        ('{"schema": "thing", "schema_version": 2, "a": 1}', "it is damaged"),
        ('{"schema": "thing", "schema_version": 2, "sha256": [], "a": 1}', "it is damaged"),
        (json_bytes("thing", 2, {"a": 1}).decode().replace('"a": 1', '"a": 2'), "it is damaged"),
        (json_bytes("thing", 2, {"b": 1}).decode(), r"lacks the keys \['a'\].*\['b'\]"),
        (json_bytes("thing", 2, {"a": 1.0}).decode(), "'a' must be int, it is float"),
        (json_bytes("thing", 2, {"a": True}).decode(), "'a' must be int, it is bool"),
    ],
)
def test_bad_json(tmp_path, text, match):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=match):
        read_json(path, "thing", 2, {"a": int})


def test_tensors(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "float": shared,
        "turned": shared.T,
        "same": shared,
        "bool": torch.tensor([True]),
        "scalar": torch.tensor(3),
        "nothing": torch.zeros(2, 0, 0),
    }
    data, description = pack_tensors(tensors)
    (tmp_path / "t").write_bytes(data)
    again = unpack_tensors(tmp_path / "t", description)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert description["tensors"]["bool"] == {"shape": [1], "dtype": "bool"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d[:-1], "it is truncated"),
        (lambda d: d + b"x", "it is of another model"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "damaged, or of another model"),
        (lambda d: b"\x80\x04" + d, "is a pickle"),
        (lambda d: b"PK\x03\x04" + d, "is a pickle"),
    ],
)
def test_bad_tensors(tmp_path, change, match):
    data, description = pack_tensors({"a": torch.ones(3)})
    (tmp_path / "t").write_bytes(change(data))
    with pytest.raises(ModelFileError, match=match):
        unpack_tensors(tmp_path / "t", description)


def test_a_record_of_other_tensors(tmp_path):
    data, description = pack_tensors({"a": torch.ones(3)})
    (tmp_path / "t").write_bytes(data)
    description["tensors"]["a"]["shape"] = [4]
    with pytest.raises(ModelFileError, match="other tensors than its record"):
        unpack_tensors(tmp_path / "t", description)
    with pytest.raises(ModelFileError, match="is missing"):
        unpack_tensors(tmp_path / "absent", description)


def test_a_forged_hash_of_what_holds_no_tensors(tmp_path):
    import hashlib

    data = b"\xff" * 64
    (tmp_path / "t").write_bytes(data)
    description = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": 64, "tensors": {}}
    with pytest.raises(ModelFileError, match="holds no tensors"):
        unpack_tensors(tmp_path / "t", description)
