"""The decision records: numbered once, and all of them in the index."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).resolve().parents[2] / "docs" / "decisions"
RECORDS = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")


def test_each_number_is_given_once_and_stands_in_the_title() -> None:
    numbers = [int(path.name[:4]) for path in RECORDS]
    assert numbers == sorted(set(numbers))
    for number, path in zip(numbers, RECORDS, strict=True):
        title = path.read_text(encoding="utf-8").splitlines()[0]
        assert title.startswith(f"# {number}. "), path.name


def test_the_index_names_every_record_in_order() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[(\d+)\]\((\S+)\) \| \S.* \|$", index, flags=re.MULTILINE)
    assert [name for _, name in named] == [path.name for path in RECORDS]
    assert [int(number) for number, _ in named] == [int(path.name[:4]) for path in RECORDS]
