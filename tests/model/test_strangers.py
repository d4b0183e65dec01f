"""Models and records out of anybody's file: used, or refused before they take memory."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import resource
import shutil
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from safetensors.torch import load_file

from scmoe._core.files import checksum
from scmoe._core.rows import Rows
from scmoe.model import MODELS, ModelFileError, read_trained
from scmoe.model._predict import PREDICTIONS, outputs_of, predict_cells
from scmoe.model._record import from_record, to_record
from scmoe.tl import assign

ARCHIVE = Path(__file__).parent / "archive" / "v2"
MOST_BYTES = 256 * 2**20
HUGE = 10**12
N_FILES = int(os.environ.get("SCMOE_STRANGE_FILES", 40))
STRANGE = [None, True, -1, 0, 2, 1.5, HUGE, 10**4000, math.nan, "", "x", [], [HUGE], [1, [2]], {}]
"""What a field may hold instead of what it should."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def cells(kind):
    told = json.loads((ARCHIVE / kind / "expected.json").read_text())
    x, markers = np.array(told["x"], dtype=np.float32), told["markers"]
    return AnnData(x, var=pd.DataFrame(index=markers))


@pytest.fixture(scope="module")
def record(kind, cells):
    model = MODELS[kind].load(ARCHIVE / kind, cells.copy(), accelerator="cpu")
    return to_record(model.trained)


@contextmanager
def little_memory():
    """Let no more than a little memory be taken."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, before[1]))
    try:
        yield
    except ModelFileError as error:
        if "memory" in str(error):
            raise MemoryError(str(error)) from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def survives(read, what):
    """Whether something is read; else it is refused as it should be."""
    try:
        with little_memory():
            read()
    except ModelFileError:
        return False
    except Exception as error:
        error.add_note(f"{what}"[:500])
        raise
    return True


def places(value, path=()):
    """Paths to all that is in mappings and lists, of long lists the first entry only."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(value, path, new):
    """A copy with another value, or with none (Ellipsis), at a path."""
    value = at = copy.deepcopy(value)
    for key in path[:-1]:
        at = at[key]
    if new is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return value


def test_records_that_somebody_changed(kind, record, cells):
    """Every field of the record and of its settings, by everything that it must not be."""
    assert survives(lambda: from_record(record, "here"), "the record itself")
    settings = json.loads(record["settings"])
    strange = [{**record, "settings": new} for new in ("", "[1]", "{", "[" * 10**5, b"{}")]
    for name in settings:
        for new in (..., *STRANGE):
            strange.append({**record, "settings": json.dumps(changed(settings, (name,), new))})
    for name in record:
        for new in (..., *STRANGE, np.zeros(2), np.array(["a", "a"]), np.array([b"a", b"b"])):
            strange.append(changed(record, (name,), new))
    accepted = [
        changed_
        for changed_ in strange
        if survives(lambda changed_=changed_: from_record(changed_, "here"), changed_)
    ]
    # of a size or a word there is one value that fits, of rates and weights there are several
    for one in accepted:
        before, now = settings, json.loads(one["settings"])
        other = {name for name in before if before[name] != now.get(name)}
        assert not other & {"n_input", "n_experts", "n_latents", "n_categories", "n_hidden"}
        assert predict_cells(from_record(one, "here").module, Rows(cells.X), PREDICTIONS)[
            "proba"
        ].shape[1] == len(one["clusters"])


def test_weights_that_somebody_changed(record):
    for name, weight in record["weights"].items():
        for new in (
            *(..., None, "x", weight[..., None], weight.astype("O"), weight.astype("c16")),
            *(weight.astype("f8"), np.zeros(10**7, weight.dtype), weight.ravel()[:0]),
        ):
            if isinstance(new, np.ndarray) and new.dtype == weight.dtype and not weight.size:
                continue
            if name == "outliers.owner" and new is ...:  # older models have none
                continue
            one = {**record, "weights": changed(record["weights"], (name,), new)}
            assert not survives(lambda one=one: from_record(one, "here"), (name, new))
        if weight.dtype.kind == "f" and weight.size:
            for value in (np.nan, np.inf):
                bad = weight.copy()
                bad.flat[-1] = value
                one = {**record, "weights": {**record["weights"], name: bad}}
                with pytest.raises(ModelFileError, match=f"{name!r} in here holds NaN or inf"):
                    from_record(one, "here")
    for name, value in (
        *(("low", 1e9), ("size", -1), ("live", False), ("outliers.n_landmarks", 10**6)),
        ("outliers.n_landmarks", -1),
    ):
        one = {**record["weights"], name: np.full_like(record["weights"][name], value)}
        with pytest.raises(ModelFileError, match=repr(name).replace("low", "high")):
            from_record({**record, "weights": one}, "here")


def test_weights_that_overflow(record, cells):
    """Finite weights, of which no probabilities come."""
    weights = {
        name: np.full_like(w, 3e38) if name.endswith("weight") else w
        for name, w in record["weights"].items()
    }
    trained = from_record({**record, "weights": weights}, "here")
    with pytest.raises(ValueError, match="of 10 cells probabilities that are no numbers"):
        list(outputs_of(trained.module, cells.X))


def write(folder, content):
    rest = {k: v for k, v in content.items() if k not in ("schema", "schema_version", "sha256")}
    try:
        text = json.dumps({**content, "sha256": checksum(rest)})
    except ValueError:
        return False
    (folder / "model.json").write_text(text)
    return True


def test_files_that_somebody_changed(kind, cells, tmp_path):
    """Each field of ``model.json``, with a hash that fits."""
    folder = shutil.copytree(ARCHIVE / kind, tmp_path / kind)
    content = json.loads((folder / "model.json").read_text())
    skipped = ("history_", "versions", "estimates_", "pruning_")
    paths = [p for p in places(content) if p and not set(p) & set(skipped)]
    changes = [(path, value) for path in paths for value in (..., *STRANGE)]
    # SCMOE_STRANGE_FILES=2000 is nearly all of them, which takes minutes
    chosen = np.random.default_rng(0).permutation(len(changes))[:N_FILES]
    n_read = 0
    for path, value in (changes[i] for i in chosen):
        if path[-1] == 0 and value is ...:
            continue
        if not write(folder, changed(content, path, value)):
            continue
        n_read += survives(lambda: read_trained(folder), (path, value))
        try:
            survives(lambda: MODELS[kind].load(folder, cells.copy()), (path, value))
        except (KeyError, ValueError) as error:
            # what these cells lack
            if not re.search("Did not find|no counts", str(error)):
                raise
    assert n_read
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in (ARCHIVE / kind).iterdir()
    )


def test_the_table_of_settings_is_that_of_the_networks(kind):
    """What a model is built from, and what its file may say."""
    settings = MODELS[kind]._module_cls.settings_class
    arguments = signature(MODELS[kind]).parameters
    assert settings.argument_kinds().keys() == arguments.keys() - {"adata"}
    # each argument is described, where `help` shows it
    for f in settings.arguments():
        assert f.metadata["doc"].strip()
        assert f"    {f.name}\n        " in MODELS[kind].__doc__


# ----------------------------------------------------------------------------------------
# without the training cells


def restored(weights):
    """How many training cells can be read out of weights."""
    return int(np.abs(np.asarray(weights["outliers.landmarks"])).sum(1).astype(bool).sum())


def test_a_model_without_landmarks(kind, cells, tmp_path):
    model = MODELS[kind].load(ARCHIVE / kind, cells.copy(), accelerator="cpu")
    model.save(tmp_path / "with")
    model.save(tmp_path / "without", landmarks=False)
    assert restored(load_file(tmp_path / "with" / "model.safetensors")) == 10
    assert restored(load_file(tmp_path / "without" / "model.safetensors")) == 0
    assert restored(to_record(model.trained)["weights"]) == 10
    assert restored(to_record(model.trained, landmarks=False)["weights"]) == 0
    # the model itself still has them
    assert np.isfinite(model.outlier_score()).all()
    again = MODELS[kind].load(tmp_path / "without", cells.copy(), accelerator="cpu")
    np.testing.assert_array_equal(again.predict_proba(), model.predict_proba())
    with pytest.raises(ValueError, match="saved with `landmarks=False`"):
        again.outlier_score()
    with pytest.raises(ValueError, match="`landmarks` must be True or False"):
        model.save(tmp_path / "other", landmarks="no")
    query = cells.copy()
    with pytest.raises(ValueError, match=r"`landmarks=False`.*give `reject=None`"):
        assign(query, tmp_path / "without")
    assert not query.uns
    query.X[:, 0] += 5
    with pytest.warns(UserWarning, match="1 of 1 samples have drifted"):
        assign(query, tmp_path / "without", reject=None)
    assert query.obs["scmoe"].notna().all()
    assert query.obs["scmoe_outlier"].isna().all()
    drift = query.uns["scmoe"]["drift"]
    assert drift["drift"].isna().all()
    assert drift["marker"].tolist() == ["CD3"]
