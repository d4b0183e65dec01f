"""What a model must look at where several processes train it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scmoe.train import digest

if TYPE_CHECKING:
    import numpy as np

    from scmoe.model import MoESimVAE
    from scmoe.train import Processes


def check_several(x: np.ndarray, processes: Processes, **of_one: Any) -> None:
    """Raise ValueError where processes have different cells, or for what one device alone can do.

    Parameters
    ----------
    x
        The cells of this process.
    processes
        All of them.
    **of_one
        Settings that need one device, false where they are not used.
    """
    for name, value in of_one.items():
        if value:
            raise ValueError(f"`{name}` needs a training on one device.")
    if not processes.agree(digest(x)):
        raise ValueError(
            "The processes have different cells: each must have all of them; the training "
            "divides every batch."
        )


def take_first(model: MoESimVAE, processes: Processes) -> None:
    """Take the model of the first process: other devices may round otherwise after the steps."""
    state = {name: value.cpu() for name, value in model.module.state_dict().items()}
    found = state, model.cluster_names_, model.history_
    state, model.cluster_names_, model.history_ = processes.of_first(lambda: found)
    model.module.load_state_dict(state)
