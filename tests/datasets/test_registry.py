"""Files that are there, wrong, missing or downloaded."""

from __future__ import annotations

import hashlib

import pooch
import pytest

from scmoe import datasets
from scmoe.datasets import _registry

CELLS, OTHERS = b"cells", b"others"


@pytest.fixture(params=["sha256", "md5"])
def registered(request, monkeypatch):
    """A registry of one file."""

    def create(**options):
        digest = hashlib.new(request.param, CELLS).hexdigest()
        options["registry"] = {"set/x.bin": f"{request.param}:{digest}"}
        options["urls"] = {"set/x.bin": "https://example.org/x.bin"}
        return made(**options)

    made = pooch.create
    monkeypatch.setattr(pooch, "create", create)


def answer(monkeypatch, content):
    """Answer downloads; returns the addresses that were asked."""
    asked = []

    def download(self, url, output_file, *args, **kwargs):
        asked.append(url)
        with open(output_file, "wb") as file:
            file.write(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    return asked


@pytest.mark.usefixtures("registered")
def test_download_once_into_the_folder_of_scanpy(cache, monkeypatch):
    asked = answer(monkeypatch, CELLS)
    for _ in range(2):
        path = _registry.fetch("set/x.bin")
        assert path == cache / "set" / "x.bin"
        assert path.read_bytes() == CELLS
    assert asked == ["https://example.org/x.bin"]


@pytest.mark.usefixtures("registered")
def test_download_into_the_folder_of_the_user(elsewhere, monkeypatch):
    answer(monkeypatch, CELLS)
    assert _registry.find("set/x.bin") is None
    path = elsewhere / "data" / "set" / "x.bin"
    assert _registry.fetch("set/x.bin") == _registry.find("set/x.bin") == path


@pytest.mark.usefixtures("registered")
def test_a_wrong_download_leaves_nothing(cache, monkeypatch):
    answer(monkeypatch, OTHERS)
    with pytest.raises(OSError, match="does not match the known hash"):
        _registry.fetch("set/x.bin")
    assert not (cache / "set" / "x.bin").exists()


@pytest.mark.usefixtures("registered")
def test_a_wrong_file_is_not_replaced(elsewhere, monkeypatch):
    asked = answer(monkeypatch, CELLS)
    path = elsewhere / "data" / "set" / "x.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHERS)
    for load in (_registry.find, _registry.fetch):
        with pytest.raises(ValueError, match=r"not the published file 'set/x\.bin'"):
            load("set/x.bin")
    assert path.read_bytes() == OTHERS
    assert asked == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("load", "told"),
    [
        (datasets.bodenmiller, r"bodenmiller/H05.*github.*no route to.*SCMOE_DATA_DIR"),
        (datasets.mnist, r"mnist/train-images-idx3.*no route to http.*SCMOE_DATA_DIR"),
        (datasets.fashion_mnist, r"fmnist/train-images-idx3.*no route to http.*SCMOE_DATA_DIR"),
    ],
)
def test_offline(load, told):
    with pytest.raises(OSError, match=told):
        load()


def test_registered_files():
    known = _registry.registry()
    assert sum(name.startswith("bodenmiller/") for name in known.registry) == 28
    for name, digest in known.registry.items():
        kind, value = digest.split(":")
        assert len(value) == {"sha256": 64, "md5": 32}[kind]
        if name not in ("mnist.npz", "fmnist.npz"):
            assert known.urls[name].startswith("http")
    for folder in ("mnist", "fmnist"):
        of_folder = [n for n in known.registry if n.startswith(f"{folder}/")]
        assert len({known.registry[name] for name in of_folder}) == 4
        assert all(known.urls[n].endswith(n.removeprefix(f"{folder}/")) for n in of_folder)
