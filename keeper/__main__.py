"""``python -m keeper`` is the command ``marginline``."""

from keeper.cli import main

main()
