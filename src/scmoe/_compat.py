"""The only place that works around what other libraries do behind their interfaces."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
