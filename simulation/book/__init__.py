"""One book over all protocols: who holds and owes what, at which prices, and what an exit would cost."""

from __future__ import annotations
