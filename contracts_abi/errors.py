"""Every error that Marginline raises on purpose.

::

    MarginlineError                 exit code 2 unless said otherwise
    ├── InputError (ValueError)     a file, flag or key that the user can mend
    │   └── UnknownNameError        (LookupError) with "did you mean"
    ├── DataError (ValueError)      bytes or rows that do not decode
    ├── ToolError (RuntimeError)    a program or package that is not there
    ├── ChainError (RuntimeError)
    │   ├── RpcUnavailable          (ConnectionError) no answer, or not an answer
    │   ├── RpcError                the node answered with an error
    │   └── CallReverted            the contract reverted; carries its data
    ├── JournalError (RuntimeError) the journal is corrupt, foreign or locked
    └── CheckFailed (AssertionError)  a run whose invariants broke; exit code 1

The command line catches only the root, prints ``error: <text>`` on one line and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_NAMED: Final = 8
"""How many names a line offers."""


class MarginlineError(Exception):
    """Root of all deliberate errors.

    Parameters
    ----------
    message
        What is wrong, naming the field and the value.
    fix
        What the user can do about it; printed behind the message.
    """

    exit_code = 2

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        text = self.message if self.fix is None else f"{self.message}; {self.fix}"
        return " ".join(text.split())


class InputError(MarginlineError, ValueError):
    """A file, flag, key or value that the user can mend."""


class UnknownNameError(InputError, LookupError):
    """A name that is in no registry; the message offers the nearest ones.

    Parameters
    ----------
    listed
        What to say in place of all known names where none is near and they are too many for a line.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], *, listed: str | None = None) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        folded = {known_name.lower(): known_name for known_name in self.known}
        near = [folded[n] for n in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
        if not near and name:
            near = [known_name for n, known_name in folded.items() if name.lower() in n][:_NAMED]
        if near:
            fix = f"did you mean {' or '.join(repr(n) for n in near)}?"
        elif listed is not None and len(self.known) > _NAMED:
            fix = listed
        else:
            fix = f"known: {', '.join(self.known) or 'none'}"
        super().__init__(f"unknown {what} {name!r}", fix=fix)


class DataError(MarginlineError, ValueError):
    """Bytes or rows that do not decode to what they claim to be."""


class ToolError(MarginlineError, RuntimeError):
    """A program or package that is needed and not there."""


class ChainError(MarginlineError, RuntimeError):
    """Something went wrong between us and a node or an EVM."""


class RpcUnavailable(ChainError, ConnectionError):
    """The endpoint gave no answer, or something that is not a JSON-RPC answer."""


class RpcError(ChainError):
    """The node answered with a JSON-RPC error.

    Attributes
    ----------
    code
        JSON-RPC error code.
    data
        The error's `data` member, as sent.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"RPC error {code}: {message}")
        self.code = code
        self.data = data


class CallReverted(ChainError):
    """The contract reverted.

    Attributes
    ----------
    data
        Revert data as returned, possibly empty.
    """

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class JournalError(MarginlineError, RuntimeError):
    """The journal is corrupt, belongs to another chain or key, or is in use."""


class CheckFailed(MarginlineError, AssertionError):
    """A check or an invariant that did not hold."""

    exit_code = 1
