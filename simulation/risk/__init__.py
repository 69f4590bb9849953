"""Tools on top of any portfolio-margin method: they ask its `margin`, and look at nothing inside."""
