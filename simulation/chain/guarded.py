"""Child processes that never outlive who started them, also when that is killed with -9.

The child starts through a POSIX shell that leaves a watcher behind: it waits on a pipe whose other end only
we hold, and the end of that pipe, however it came about, kills the child. Linux's parent-death signal is no
alternative, since it follows the thread that started the child and not the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Final

_SCRIPT: Final = (
    'exec 3<&0; (read -r _ <&3 || kill -KILL $$) </dev/null >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'
)


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` under a watcher.

    Start it with ``stdin=subprocess.PIPE`` and ``start_new_session=True``, keep the pipe open, and call
    `release` once the child has ended.
    """
    return ["/bin/sh", "-c", _SCRIPT, "guarded", *command]


def release(process: subprocess.Popen[Any]) -> None:
    """Let the watcher of an ended child go."""
    pipe = process.stdin
    if pipe is not None and not pipe.closed:
        with contextlib.suppress(BrokenPipeError):
            # A line, not the end of the pipe: the watcher must not kill whoever has the process id by now.
            os.write(pipe.fileno(), b"\n")
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def signal_group(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal to a guarded child and to what it runs under, its watcher included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
