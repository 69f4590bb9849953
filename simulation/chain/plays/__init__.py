"""Scenarios on a real chain: the mechanism's own contract before the real Aave V3, step by step."""
