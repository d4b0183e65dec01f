"""The only place that works around what other libraries do behind their interfaces."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from anndata import AnnData
    from scvi.model.base import BaseModelClass


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C during a Lightning fit arrive as ``KeyboardInterrupt``.

    Lightning (seen in 2.6) answers an interrupt with ``sys.exit(1)`` and leaves SIGINT
    ignored, which ends scripts without a traceback and makes notebooks deaf to the next
    Ctrl-C.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def forget(model: BaseModelClass, adata: AnnData) -> None:
    """Let go of cells that a model has looked at once.

    scvi-tools (1.4) keeps every AnnData that a model was asked about for as long as the model
    lives, and its public ``deregister_manager`` does not find those that were not set up by
    hand.
    """
    managers = model._per_instance_manager_store[model.id]
    managers.pop(adata.uns["_scvi_uuid"], None)


def release(model_class: type[BaseModelClass], adata: AnnData) -> None:
    """Let go of cells that were set up for a model which nobody keeps.

    scvi-tools (1.4) holds on to every AnnData that was set up, for the life of the process.
    """
    uuid = adata.uns.get("_scvi_uuid")
    model_class._setup_adata_manager_store.pop(uuid, None)
    stores = model_class._per_instance_manager_store
    for model_id in [m for m, managers in stores.items() if uuid in managers]:
        del stores[model_id]


def on_device(accelerator: str, device: int | str) -> torch.device:
    """The one device that scvi-tools' two arguments stand for."""
    from scvi.model._utils import parse_device_args

    return parse_device_args(
        accelerator=accelerator,
        devices=device,
        return_device="torch",
        validate_single_device=True,
    )[2]


@contextmanager
def one_thread(apply: bool = True) -> Iterator[None]:
    """Let torch compute on one thread, where ``apply`` says so.

    Layers of a few dozen units finish sooner than threads can be woken. On a machine whose
    cores are busy, threads that wait for each other were seen to take 20 times as long.
    """
    import torch

    threads = torch.get_num_threads()
    if apply:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep advertisements, hardware notes and reports on inner steps out of notebooks."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "scvi")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # lightning 2.6 calls a name that torch 2.13 deprecates
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
