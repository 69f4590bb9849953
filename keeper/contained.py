"""What fails while one account is judged, planned for or prepared is that account's matter and nobody else's.

A state that nobody thought of can break arithmetic that holds for everybody else. An account like that is
unknown: it is held, told of with the cause, and looked at again at the next head. What fails outside of that
still ends the process, loudly, since then nobody knows what else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from contracts_abi.errors import MarginlineError


def cause_of(error: Exception) -> str:
    """Return one line on what failed, and where unless the error is one of ours, which says so itself."""
    if isinstance(error, MarginlineError):
        return f"it could not be planned for: {error}"
    frames = extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return (
        f"a defect kept it from being planned for, please report it: {type(error).__name__}: {error}{where}"
    )


@contextmanager
def contained(failed: Callable[[str], object]) -> Iterator[None]:
    """Hand the cause of whatever fails inside to `failed`, and go on behind it.

    Raises
    ------
    MemoryError
        That is the machine's matter and no account's.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        failed(cause_of(error))
