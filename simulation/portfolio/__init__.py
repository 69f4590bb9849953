"""A portfolio and its market: what an account holds, and the state of the world that prices it."""
