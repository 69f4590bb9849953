"""Replays: what an oracle did to a lending market, with and without guards, and the evidence of it."""
