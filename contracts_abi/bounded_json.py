"""JSON that others wrote: refused before the parser recurses through brackets without end.

Python's parser recurses in C. A library that this project needs raises the interpreter's limit on recursion
so far that such a text ends the process and no exception can tell of it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 4_096
"""Deeper than the trace of any transaction, which nests twice for each of at most 1,024 calls."""

_NESTING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A text, even one without an end, or a bracket."""


def bounded_json(text: str | bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    ValueError
        If it is no JSON in UTF-8, or nests deeper than `max_depth`.
    """
    document = text.decode() if isinstance(text, bytes) else text
    if document.count("[") + document.count("{") > max_depth and _deep(document, max_depth):
        raise ValueError(f"nests deeper than {max_depth}")
    return json.loads(document)


def _deep(text: str, max_depth: int) -> bool:
    depth = 0
    for found in _NESTING.finditer(text):
        bracket = found[0]
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > max_depth:
            return True
    return False
