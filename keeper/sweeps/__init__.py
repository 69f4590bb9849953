"""Sweeps on this machine: worker processes that compute the tasks of a plan, and the run that drives them."""
