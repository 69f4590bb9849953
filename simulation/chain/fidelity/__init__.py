"""The same scenario on the protocols' own bytecode: a shared book opened in an EVM, liquidated there."""

from __future__ import annotations
