"""Hold the margin methods against the numbers that their venues published, and print how far they are apart.

::

    python scripts/margin_vectors.py [--vectors FOLDER]            print the table of docs/margin.md
    python scripts/margin_vectors.py [--vectors FOLDER] --write    write it into docs/margin.md
    python scripts/margin_vectors.py [--vectors FOLDER] --all      and each comparison that fails

Exit 1 when a comparison fails, 2 when the vectors are not there. The vectors are no part of the project; the
folder is ../shared/vectors from its root unless given.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulation.margin.deribit_spm import from_example
from simulation.margin.vectors import cases_of

ROOT: Final = Path(__file__).resolve().parents[1]
VECTORS: Final = ROOT.parent / "shared" / "vectors"
GUIDE: Final = ROOT / "docs" / "margin.md"
BEGIN: Final = "<!-- measured: python scripts/margin_vectors.py --write -->"
END: Final = "<!-- end of measured -->"

RELATIVE: Final = 1e-9
ABSOLUTE: Final = 1e-9
NOTHING_USD: Final = 1e-8
"""Below this a venue's figure is noise of its 18 decimals: it is compared with 0, as the venue's tests do."""
MARK_RELATIVE: Final = 1e-3
"""The standard manager's marks, as its cases say themselves."""
GUARD: Final = 1e-7
"""Added before whole dollars are cut off: fixed point has 825 where a float has 824.9999999999998."""

AUCTION: Final = {
    "pre_mtm": "PreMtM",
    "pre_mm": "PreMM",
    "pre_bm": "PreBM",
    "pre_fmax": "PreFMax",
    "price": "ExpectedBidPrice",
    "fraction": "fLiquidatedOfOriginal",
    "post_mtm": "PostMtM",
    "post_mm": "PostMM",
    "post_bm": "PostBM",
    "post_fmax": "PostFMax",
}
"""Name of a figure of a bid, and the name that the venue's file has for it."""


@dataclass(frozen=True)
class Difference:
    """One figure held against the venue's.

    Attributes
    ----------
    case, figure
        Which.
    ours, theirs
        Dollars, or a part.
    error
        Relative, absolute or in whole dollars, as the set compares.
    fits
        Whether it is within the set's tolerance.
    """

    case: str
    figure: str
    ours: float
    theirs: float
    error: float
    fits: bool


@dataclass(frozen=True)
class VectorSet:
    """A folder or a file of vectors.

    Attributes
    ----------
    method
        Id of the margin method.
    files
        Pattern below the folder of the vectors.
    compared
        What, and how, in words.
    refused
        Stems of files whose parameters are not valid, which must be refused.
    aside
        Cases that the venue's own tests leave out; computed, not compared.
    """

    method: str
    files: str
    compared: str
    refused: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


SETS: Final = (
    VectorSet(
        "derive.pmrm2",
        "pmrm_2/*.json",
        "IM, MM, three marks, each scenario; relative 1e-9",
        refused=("test_67_misc_skew_scenario_with_spot_move",),
    ),
    VectorSet(
        "derive.pmrm2.1",
        "pmrm_2/*.json",
        "the same, the parameters as an account's override",
        refused=("test_67_misc_skew_scenario_with_spot_move",),
    ),
    VectorSet("derive.pmrm", "pmrm_v1/exact.json", "IM, MM; relative 1e-9"),
    VectorSet("derive.pmrm", "pmrm_v1/whole_usd.json", "IM, MM in whole dollars; exact"),
    VectorSet("derive.srm", "srm/exact.json", "IM, MM relative 1e-9; mark 1e-3"),
    VectorSet("derive.srm", "srm/whole_usd.json", "IM, MM in whole dollars; exact"),
    VectorSet(
        "derive.auction",
        "liquidation/liquidationTests.json",
        "fee; before and after each bid value, margins, largest part; price, part; absolute 1e-9",
        aside=("InsolventTest1", "InsolventTest2"),
    ),
    VectorSet(
        "deribit.spm",
        "deribit/pme_examples.json",
        "each row of linear legs, absolute 1e-12; sums, which the venue rounds, absolute 1e-8",
    ),
)


def relative(case: str, figure: str, ours: float, theirs: float, tolerance: float = RELATIVE) -> Difference:
    """Return a relative difference; next to nothing is compared with 0."""
    gap = abs(ours - theirs)
    error = gap if abs(theirs) < NOTHING_USD else gap / abs(theirs)
    limit = NOTHING_USD if abs(theirs) < NOTHING_USD else tolerance
    return Difference(case, figure, ours, theirs, error, error <= limit)


def absolute(case: str, figure: str, ours: float, theirs: float) -> Difference:
    """Return an absolute difference."""
    gap = abs(ours - theirs)
    return Difference(case, figure, ours, theirs, gap, gap <= ABSOLUTE)


def whole(case: str, figure: str, ours: float, theirs: float) -> Difference:
    """Return the difference of whole dollars, cut off toward zero."""
    cut = math.trunc(ours + math.copysign(GUARD, ours))
    return Difference(case, figure, ours, theirs, abs(cut - theirs), cut == theirs)


def differences(entry: VectorSet, record: Mapping[str, Any], value: Any) -> Iterator[Difference]:
    """Yield what a computed case differs by from the venue's answer in its file.

    Parameters
    ----------
    entry
        The set that the case is of.
    record
        What was computed.
    value
        The file.
    """
    name = record["case"]
    _, _, key = name.partition(":")
    if entry.method.startswith("derive.pmrm2"):
        theirs = value["Result"]
        for ours, their in (
            ("im", "IM"),
            ("mm", "MM"),
            ("mtm", "PortfolioMTM"),
            ("option_mtm", "OptionMTM"),
            ("collateral_mtm", "CollateralMTM"),
        ):
            yield relative(name, ours, record[ours], float(theirs[their]))
        rows = [row[-1] for part in ("reg", "tail", "skew") for row in theirs[f"{part}_losses"]]
        for i, (profit, row) in enumerate(zip(record["scenarios"], rows, strict=True)):
            yield relative(name, f"scenario {i}", profit, float(row))
    elif entry.method == "derive.auction":
        run = value[key]
        yield absolute(name, "fee", record["fee"], float(run["LiquidationFee"]))
        for i, (bid, action) in enumerate(zip(record["bids"], run["Actions"], strict=True)):
            for ours, their in AUCTION.items():
                yield absolute(name, f"bid {i} {ours}", bid[ours], action["Results"][their] / 1e18)
    elif entry.method == "deribit.spm":
        example = from_example(value[key])
        for figure, published in example.expected.items():
            found = record[figure] if isinstance(record[figure], list) else [record[figure]]
            for computed, said in zip(found, published, strict=True):
                gap = abs(computed - said)
                yield Difference(name, figure, computed, said, gap, gap <= example.tolerance[figure])
    else:
        compare = whole if "whole USD" in value[key]["compare"] else relative
        for figure, theirs in value[key]["expected"].items():
            if figure == "mtm":
                yield relative(name, figure, record[figure], theirs, MARK_RELATIVE)
            else:
                yield compare(name, figure, record[figure], theirs)


@dataclass(frozen=True)
class Outcome:
    """What became of a set.

    Attributes
    ----------
    entry
        The set.
    cases
        How many were compared.
    refused
        How many were refused as they must be.
    aside
        How many were computed and not compared.
    figures
        Every comparison.
    wrong
        Cases that were refused and must not be, or the other way round.
    """

    entry: VectorSet
    cases: int
    refused: int
    aside: int
    figures: tuple[Difference, ...]
    wrong: tuple[str, ...]

    @property
    def failures(self) -> tuple[Difference, ...]:
        """Comparisons beyond the tolerance."""
        return tuple(figure for figure in self.figures if not figure.fits)

    @property
    def passed(self) -> bool:
        """Whether everything is as the venue has it; nothing compared is no proof."""
        return bool(self.figures) and not self.failures and not self.wrong

    @property
    def worst(self) -> float:
        """The largest error; 0 where nothing was compared."""
        return max((figure.error for figure in self.figures), default=0.0)


def measured(entry: VectorSet, folder: Path) -> Outcome:
    """Return what becomes of a set."""
    cases = refused = aside = 0
    figures: list[Difference] = []
    wrong: list[str] = []
    for file in sorted(folder.glob(entry.files)):
        value = json.loads(file.read_text(encoding="utf-8"))
        for case in cases_of(entry.method, file.stem, value):
            record = case.record()
            if ("refused" in record) != (file.stem in entry.refused):
                wrong.append(f"{case.name}: {record.get('refused', 'not refused')}")
            elif "refused" in record:
                refused += 1
            elif case.name.partition(":")[2] in entry.aside:
                aside += 1
            else:
                cases += 1
                figures += differences(entry, record, value)
    return Outcome(entry, cases, refused, aside, tuple(figures), tuple(wrong))


def table(outcomes: list[Outcome]) -> list[str]:
    """Return the outcomes as a table of Markdown."""
    rows = [
        "| method | vectors | cases | refused, as due | figures | within | largest error | compared |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for out in outcomes:
        within = sum(figure.fits for figure in out.figures)
        aside = f" ({out.aside} more computed, left out by the venue's tests)" if out.aside else ""
        rows.append(
            f"| `{out.entry.method}` | `{out.entry.files}` | {out.cases}{aside} | {out.refused} "
            f"| {len(out.figures):,} | {within:,} | {out.worst:.1e} | {out.entry.compared} |"
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the head of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=Path, default=VECTORS)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args(arguments)
    if not given.vectors.is_dir():
        print(f"error: no folder {given.vectors}; give --vectors", file=sys.stderr)
        return 2
    outcomes = [measured(entry, given.vectors) for entry in SETS]
    rows = table(outcomes)
    print("\n".join(rows))
    for out in outcomes if given.all else []:
        for failure in (*out.wrong, *out.failures):
            print(failure, file=sys.stderr)
    for out in outcomes:
        if not out.figures:
            print(f"error: no case in {given.vectors / out.entry.files}", file=sys.stderr)
            return 2
    if given.write:
        before, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        GUIDE.write_text("\n".join([before + BEGIN, *rows, END + after]), encoding="utf-8")
    return 0 if all(out.passed for out in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
