"""The pages of the margin methods: one for each, whole, and their examples run as they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from contracts_abi.errors import InputError
from simulation.margin import margin_methods
from tests.command_line import ROOT, Inside
from tests.unit.test_docs import docs

KINDS = list(margin_methods)
METHODS = ROOT / "docs" / "methods"


def text_of(kind: str) -> str:
    path = METHODS / f"{kind}.md"
    heads = ", ".join(docs.METHOD_HEADINGS)
    assert path.is_file(), f"write docs/methods/{kind}.md with the headings {heads}"
    return path.read_text(encoding="utf-8")


def written(text: str) -> str:
    """Return what people wrote."""
    return re.sub(r"(?s)<!-- generated: (.*?) -->.*?<!-- end of \1 -->", "", text)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_has_a_page_with_all_headings(kind: str) -> None:
    text = text_of(kind)
    assert text.startswith(f"# `{kind}`\n")
    assert tuple(re.findall(r"(?m)^## (.*)$", text)) == docs.METHOD_HEADINGS
    for heading in docs.METHOD_HEADINGS:
        section = docs.section_text(text, heading)
        if heading == "Parameters":
            assert "| parameter |" in section
        else:
            assert len(written(section).split()) >= 10, heading
    assert re.search(r"(?m)^    \S", docs.section_text(text, "Formulas"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_says_what_was_verified_and_what_was_not(kind: str) -> None:
    text = text_of(kind)
    for word in ("Verified", "Not verified"):
        assert len(docs.said_of(text, word).split()) >= 3, word


def test_no_page_is_of_no_method() -> None:
    assert sorted(path.stem for path in METHODS.glob("*.md")) == sorted(["README", *KINDS])


def test_the_index_has_every_method_with_its_grade() -> None:
    rows = [
        line for line in (METHODS / "README.md").read_text("utf-8").splitlines() if line.startswith("| [`")
    ]
    assert [re.findall(r"`([^`]+)`", row)[0] for row in rows] == KINDS
    for kind, row in zip(KINDS, rows, strict=True):
        assert f"| {margin_methods.get(kind).grade} |" in row
        assert all(len(column.split()) >= 3 for column in row.split(" | ")[-2:]), row


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_meaning(kind: str) -> None:
    rows = [line for line in docs.method_parameters(kind) if line.startswith("| `")]
    assert rows
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)[-2].split()) >= 2, row


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_runs_as_it_is_written_and_prints_its_figures(
    kind: str, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(kind)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, content in docs.example_files(text).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = inside(*docs.example_words(text))
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    (account,) = answer["accounts"]
    assert answer["method"] == kind
    rows = re.findall(r"(?m)^\| (\S+) \| (.*) \|$", docs.section_text(text, "Example"))
    figures = dict(rows[1:])
    assert len(figures) >= 6 + len(account["components"])
    for name, shown in figures.items():
        owner = account["components"] if name.startswith("components.") else account
        value = owner[name.removeprefix("components.")]
        assert shown == (value if isinstance(value, str) else docs.figure(value)), name


@pytest.mark.parametrize("kind", KINDS)
def test_figures_that_a_page_speaks_of_are_those_that_are_printed(kind: str) -> None:
    example = docs.section_text(text_of(kind), "Example")
    printed = re.findall(r"\| (\S+) \|$", example, flags=re.MULTILINE)
    for figure in re.findall(r"`([\d,]+\.\d+)`", written(example)):
        assert figure in printed, figure


@pytest.mark.parametrize("page", ["README", *KINDS])
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    path = METHODS / f"{page}.md"
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"(?m)^#+ (.*)$", linked.read_text(encoding="utf-8"))
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, (
                target
            )


def test_a_page_that_is_missing_is_told_with_its_headings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "GUIDES", {METHODS / "none.such.md": {}})
    assert docs.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "docs/methods/none.such.md is missing: write it, with the headings What it demands, "
    )


def test_an_example_of_another_command_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of marginline margin run"):
        docs.example_words("## Example\n\n```sh\nmarginline demo\n```\n")
    with pytest.raises(InputError, match="did you mean 'strangle'"):
        docs.example_result(
            "## Example\n\n```sh\nmarginline margin run cross examples/book.json --account strangel\n```\n"
        )


class Part(BaseModel):
    """A part of a set.

    Attributes
    ----------
    share
        Of all there is.
    """

    share: float = 0.5


class Known(BaseModel):
    """A set of parameters.

    Attributes
    ----------
    part
        See there.
    rates
        Symbol to rate.
    steps
        Of a | and b.
    count
        How many.
    """

    part: Part = Part()
    rates: dict[str, float] = Field(default_factory=dict)
    steps: tuple[tuple[float, float], ...] = ()
    count: int


def test_parameters_as_tables() -> None:
    below: list[str] = []
    many = tuple((float(i), 1e6 * i) for i in range(20))
    sets = {
        "a": Known(count=10_000),
        "b": Known(part=Part(share=1e-5), rates={"X": 2.0}, steps=many, count=1),
    }
    assert docs.parameter_rows(Known, sets, below) == [
        "| `part.share` | 0.5 | 1e-05 | Of all there is. |",
        "| `rates` | none | X: 2 | Symbol to rate. |",
        r"| `steps` | none | 20, below | Of a \| and b. |",
        "| `count` | 10,000 | 1 | How many. |",
    ]
    assert below[:4] == ["", "`steps`, b:", "", "- 0, 0"]
    assert below[-1] == "- 19, 19,000,000"
    assert docs.parameter_rows(Known, {"default": None}, [])[-1] == "| `count` | required | How many. |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (float("inf"), "no end"), (None, "none"), ("", "none"), (("a", "b"), "a, b")],
)
def test_a_value_in_a_few_words(value: object, text: str) -> None:
    assert docs.cell(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.567, "1,234.57"), (-0.00001, "0.0000"), (0.38774, "0.3877"), (-12.0, "-12.00")]
)
def test_a_figure_has_two_digits_of_dollars_and_four_of_small_numbers(value: float, text: str) -> None:
    assert docs.figure(value) == text
