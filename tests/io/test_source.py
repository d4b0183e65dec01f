"""Files that are compressed, and what is no file."""

from __future__ import annotations

import gzip
import os
import tracemalloc

import numpy as np
import pytest
from fcs_file import read_file

from scmoe.io import FCSReadError, read_fcs

EVENTS = [[1, 2], [3, 4], [5, 6]]


def test_compressed_file_whatever_its_name(make_fcs, tmp_path):
    raw = make_fcs().read_bytes()
    for name in ("a.fcs.gz", "b.fcs", "c.FCS.GZ"):
        (tmp_path / "plate").mkdir(exist_ok=True)
        (tmp_path / "plate" / name).write_bytes(gzip.compress(raw))
    adata = read_fcs(tmp_path / "plate")
    assert list(adata.obs["sample"].cat.categories) == ["a", "b", "c"]
    np.testing.assert_array_equal(adata.X, EVENTS * 3)


def test_members_one_after_the_other(make_fcs, tmp_path):
    raw = make_fcs().read_bytes()
    path = tmp_path / "x.fcs"
    path.write_bytes(gzip.compress(raw[:70]) + gzip.compress(raw[70:]))
    np.testing.assert_array_equal(read_file(path).values, EVENTS)


def test_damage_is_found_by_the_checksum(make_fcs, tmp_path):
    raw = gzip.compress(make_fcs(pad=4000).read_bytes(), compresslevel=0)
    path = tmp_path / "x.fcs"
    at = raw.index(np.float32(3).tobytes())
    for damaged in (
        raw[:at] + b"\1" + raw[at + 1 :],
        raw[: len(raw) // 2],
        raw[:-3],
        raw + b"more",
        raw[:1] + b"\x8b",
    ):
        path.write_bytes(damaged)
        with pytest.raises(FCSReadError, match="compressed file is damaged"):
            read_file(path)


def test_compressed_bomb(make_fcs, tmp_path):
    path = tmp_path / "x.fcs"
    compressor = gzip.zlib.compressobj(9, gzip.zlib.DEFLATED, 31)
    head = make_fcs().read_bytes()
    zeros = bytes(1 << 20)
    parts = [compressor.compress(head)] + [compressor.compress(zeros) for _ in range(100)]
    path.write_bytes(b"".join(parts) + compressor.flush())
    tracemalloc.start()
    with pytest.raises(FCSReadError, match=r"more than \d+ bytes, 100 times its own size"):
        read_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_what_is_no_file(tmp_path):
    with pytest.raises(FCSReadError, match="folder"):
        read_file(tmp_path)
    os.mkfifo(tmp_path / "pipe.fcs")
    with pytest.raises(FCSReadError, match="not a regular file"):
        read_file(tmp_path / "pipe.fcs")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing.fcs")


def test_file_that_may_not_be_read(make_fcs, monkeypatch):
    path = make_fcs()

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", denied)
    with pytest.raises(PermissionError, match=r"cells\.fcs"):
        read_file(path)


def test_file_that_shrinks_between_the_passes(make_fcs):
    from scmoe.io._dataset import open_dataset, read_values

    about = open_dataset(make_fcs())
    about.path.write_bytes(about.path.read_bytes()[:-5])
    with pytest.raises(FCSReadError, match="ends within DATA"):
        read_values(about, np.empty((3, 2)))
