"""Where the templates of pages and files are, and how they are filled."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment(*, markup: bool = True) -> Environment:
    """Return the environment of the package's templates; without `markup` nothing is escaped as HTML."""
    return Environment(
        loader=PackageLoader("simulation.report"),
        autoescape=markup,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
