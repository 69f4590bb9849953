"""The demo: a local market taken through a scenario while the keeper, in its own process, looks after it."""
