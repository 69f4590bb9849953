"""What contracts look like: ABIs, calls, artifacts and our own Vyper sources. No network."""
