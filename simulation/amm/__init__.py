"""Automated market makers in exact integers: what selling into a pool pays, and what the pool is then."""
