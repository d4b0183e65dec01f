"""The fit of inner networks."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from scmoe._core.random import seeded
from scmoe.train import fit
from scmoe.train._fit import tqdm


class Regression(nn.Module):
    """The mean of each feature; remembers the batches that it saw."""

    def __init__(self, d=2, on_batch=None):
        super().__init__()
        self.centre = nn.Parameter(torch.randn(d))
        self.seen: list[dict[str, torch.Tensor]] = []
        self.on_batch = on_batch

    def loss(self, batch):
        assert self.training
        self.seen.append(batch)
        if self.on_batch is not None:
            self.on_batch()
        error = (batch["x"] - self.centre).square().mean()
        return {"loss": 2 * error, "error": error}


def cells(n=10, d=2):
    return torch.randn(n, d, generator=torch.manual_seed(0))


def train(module, data, *, max_epochs=2, batch_size=4, lr=0.1, **kwargs):
    kwargs = {"progress": False, "accelerator": "cpu", **kwargs}
    return fit(module, data, max_epochs=max_epochs, batch_size=batch_size, lr=lr, **kwargs)


def test_learns_and_ends_ready_for_use():
    x = cells(200) + torch.tensor([3.0, -1.0])
    module = Regression()
    train(module, {"x": x}, max_epochs=60, batch_size=50)
    torch.testing.assert_close(module.centre.detach(), x.mean(0), atol=0.1, rtol=0)
    assert not module.training
    assert module.centre.device.type == "cpu"


def test_history_holds_the_means_of_each_epoch():
    # with a rate of next to nothing the weights stay as they are
    x, module = cells(8), Regression()
    history = train(module, {"x": x}, max_epochs=3, lr=1e-12)
    assert isinstance(history, pd.DataFrame)
    assert list(history) == ["loss", "error"]
    assert len(history) == 3
    expected = (x - module.centre.detach()).square().mean().item()
    np.testing.assert_allclose(history["error"], expected, rtol=1e-5)
    np.testing.assert_allclose(history["loss"], 2 * expected, rtol=1e-5)


def test_every_cell_once_an_epoch_in_a_new_order():
    module = Regression()
    train(module, {"x": cells(), "other": torch.arange(10) * 10})
    first, second = (torch.cat([b["index"] for b in module.seen[i : i + 3]]) for i in (0, 3))
    assert len(module.seen) == 6
    assert first.tolist() != second.tolist()
    for order in (first, second):
        assert sorted(order.tolist()) == list(range(10))
    for batch in module.seen:
        assert batch["other"].tolist() == (10 * batch["index"]).tolist()
        torch.testing.assert_close(batch["x"], cells()[batch["index"]])


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 4]), (10, [4, 4, 2]), (3, [3])])
def test_a_last_lone_cell_is_left_out(n, sizes):
    module = Regression()
    history = train(module, {"x": cells(n)}, max_epochs=1)
    assert [len(batch["x"]) for batch in module.seen] == sizes
    # and the mean is of the batches that there were
    errors = [(b["x"] - b["x"].mean(0)).square().mean() for b in module.seen]
    assert len(errors) == len(sizes)
    assert np.isfinite(history["loss"]).all()


def test_same_seed_same_weights_and_history():
    def once(seed):
        with seeded(seed):
            module = Regression()
            history = train(module, {"x": cells(50)}, augment=lambda x, _: x + torch.rand_like(x))
        return module.centre.detach(), history

    (first, of_first), (second, of_second), (other, _) = once(3), once(3), once(4)
    assert torch.equal(first, second)
    pd.testing.assert_frame_equal(of_first, of_second)
    assert not torch.equal(first, other)


def test_augment_gets_the_rows_and_the_network_what_it_gives():
    x, calls = cells(), []

    def augment(batch, index):
        calls.append((batch, index))
        return batch + 100

    module = Regression()
    train(module, {"x": x}, augment=augment)
    assert len(calls) == len(module.seen) == 6
    for (batch, index), seen in zip(calls, module.seen, strict=True):
        torch.testing.assert_close(batch, x[index])
        torch.testing.assert_close(seen["x"], x[index] + 100)
        assert torch.equal(seen["index"], index)
    # the data are as they were
    torch.testing.assert_close(x, cells())


@pytest.fixture
def bars(monkeypatch):
    """The bars that are made."""
    made = []

    def make(*args, **kwargs):
        made.append(tqdm(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("scmoe.train._fit.tqdm", make)
    monkeypatch.setattr("scmoe.train._fit.is_watched", lambda: True)
    return made


def test_the_bar_counts_epochs(bars, capsys):
    train(Regression(), {"x": cells()}, max_epochs=3, progress=True, description="Of cells")
    (bar,) = bars
    assert (bar.n, bar.total) == (3, 3)
    shown = capsys.readouterr().err
    assert "Of cells" in shown
    assert "loss=" in shown


def test_without_progress_nothing_is_printed(bars, capfd):
    train(Regression(), {"x": cells()})
    assert not bars
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_arrives_and_closes_the_bar(bars):
    module = Regression()

    def press():
        if len(module.seen) == 5:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        if len(module.seen) >= 5:
            time.sleep(0.01)

    module.on_batch = press
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(module, {"x": cells()}, max_epochs=500, progress=True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert 5 <= len(module.seen) < 1000
    # a closed bar has no place on the screen any more
    assert bars[0] not in tqdm._instances


def test_an_error_arrives_as_it_is(bars):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        train(Regression(on_batch=fail), {"x": cells()}, progress=True)
    assert bars[0] not in tqdm._instances
