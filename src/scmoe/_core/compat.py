"""The only place that works around what other libraries do behind their interfaces."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scmoe._core.random import one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from anndata import AnnData
    from lightning.pytorch import Trainer
    from scvi.model.base import BaseModelClass


def rep_key(adata: AnnData, name: str) -> str:
    """Return the key in ``.obsm`` of a representation; ``name`` itself where there is none.

    scanpy writes ``X_pca`` and ``X_umap``, and with the preset of its version 2 (seen in 1.13)
    ``pca`` and ``umap``: either name finds either.
    """
    other = name.removeprefix("X_") if name.startswith("X_") else f"X_{name}"
    return other if name not in adata.obsm and other in adata.obsm else name


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


@contextmanager
def released(model_class: type[BaseModelClass], adata: AnnData) -> Iterator[None]:
    """Let go of cells, after the block, that were set up for a model which nobody keeps.

    scvi-tools (1.4) holds on to every AnnData that was set up, for the life of the process.
    """
    try:
        yield
    finally:
        uuid = adata.uns.get("_scvi_uuid")
        model_class._setup_adata_manager_store.pop(uuid, None)
        stores = model_class._per_instance_manager_store
        for model_id in [m for m, managers in stores.items() if uuid in managers]:
            del stores[model_id]


@contextmanager
def unregistered_on_failure(model_class: type[BaseModelClass], adata: AnnData) -> Iterator[None]:
    """Take back all that registering wrote, to the cells and to the class, if the block fails."""
    obs, uns = adata.obs.copy(deep=False), dict(adata.uns)
    setups = model_class._setup_adata_manager_store
    models = model_class._per_instance_manager_store
    setups_before, models_before = dict(setups), set(models)
    try:
        yield
    except BaseException:
        adata.obs = obs
        for key in set(adata.uns) - set(uns):
            del adata.uns[key]
        adata.uns.update(uns)
        setups.clear()
        setups.update(setups_before)
        for key in set(models) - models_before:
            del models[key]
        raise


def show_setup(registry: dict[str, Any]) -> None:
    """Show the arguments of ``setup_anndata`` that a registry keeps."""
    from scvi.data import AnnDataManager

    AnnDataManager.view_setup_method_args(registry)


def on_device(accelerator: str, device: int | list[int] | str) -> torch.device:
    """Return the device of scvi-tools' two arguments; ValueError where there is none."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from scvi.model._utils import parse_device_args

    try:
        return parse_device_args(
            accelerator=accelerator,
            devices=device,
            return_device="torch",
            validate_single_device=True,
        )[2]
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise _no_such_device(accelerator, device) from error


def empty_trainer(
    accelerator: str, devices: int | list[int] | str, n_nodes: int, strategy: str
) -> Trainer:
    """Lightning's reading of the arguments for several devices; ValueError where it has none."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from scvi.model._utils import parse_device_args

    if isinstance(devices, bool):
        raise _no_such_device(accelerator, devices)
    try:
        with quiet():
            # as scvi-tools does, for which "auto" is one device
            name, found, _ = parse_device_args(accelerator, devices, "torch")
            return Trainer(
                accelerator=name,
                devices=found,
                num_nodes=n_nodes,
                strategy=strategy,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except (MisconfigurationException, ImportError, TypeError) as error:
        raise _no_such_device(accelerator, devices) from error


def is_notebook() -> bool:
    """Whether Lightning can start no new processes here but forks."""
    from lightning.fabric.utilities.imports import _IS_INTERACTIVE

    return _IS_INTERACTIVE


def _no_such_device(accelerator: str, devices: int | list[int] | str) -> ValueError:
    """Return an error that lists the devices that are available."""
    import torch

    there = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    names = " and ".join(["cpu", *(name for name, yes in there.items() if yes)])
    return ValueError(
        f"torch finds no such device: `accelerator={accelerator!r}`, `devices={devices!r}`. It "
        f'finds {names} here; `accelerator="auto"` takes what there is. A GPU needs its '
        "driver and a torch that was built for it."
    )


@contextmanager
def one_thread(apply: bool = True) -> Iterator[None]:
    """Let torch compute on one thread, where ``apply`` says so.

    Layers of a few dozen units finish sooner than threads can be woken. On a machine whose
    cores are busy, threads that wait for each other were seen to take 20 times as long.
    """
    import torch

    with same_threads():
        if apply:
            torch.set_num_threads(1)
        yield


@contextmanager
def same_threads() -> Iterator[None]:
    """Let torch compute on as many threads as before.

    Parallel loops of numba (seen in 0.62, with pynndescent 0.6) set the number of threads that
    OpenMP has, of torch too, to that of the cores; what was asked for by ``OMP_NUM_THREADS`` or
    ``torch.set_num_threads`` is lost.
    """
    import torch

    with one_at_a_time():
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep advertisements, hardware notes and reports on inner steps out of notebooks."""
    with one_at_a_time(), _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    from scvi.train import _trainrunner

    # scvi-tools (1.4) prints that a training failed, to the standard output; the error says so
    printed, vars(_trainrunner)["print"] = vars(_trainrunner).get("print"), lambda *_: None
    loggers = [
        logging.getLogger(name)
        for name in (
            "lightning.fabric",
            "lightning.pytorch",
            "lightning.pytorch.utilities.rank_zero",
            "scvi",
        )
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # lightning 2.6 calls a name that torch 2.13 deprecates
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")
            # scvi-tools: of the few cells that a trained model may be asked about
            warnings.filterwarnings("ignore", "Category .* has fewer than 3 cells")
            # lightning: cells are in memory, where workers only cost; epochs are what is logged
            warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
            warnings.filterwarnings("ignore", "The number of training batches")
            yield
    finally:
        if printed is None:
            vars(_trainrunner).pop("print", None)
        else:
            vars(_trainrunner)["print"] = printed
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
