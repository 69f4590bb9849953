"""Positions, margin and liquidation. No network and no clock, `simulation.chain` aside."""
