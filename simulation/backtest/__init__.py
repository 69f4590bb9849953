"""Backtests over many paths and parameters: what a sweep computes, and the folder that keeps it."""
