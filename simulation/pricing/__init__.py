"""Prices of options, volatility surfaces, and the compiled grid of instruments by scenarios."""
