"""Ends the processes of a command with the process that started them."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """Let this process, which `multiprocessing` started, end when the one that started it is gone, however it died.

    A process that is killed can't stop those that it started, and they would go on, or hold a port.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
