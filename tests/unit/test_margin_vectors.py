"""Derive's methods agree with every published case of the venue; files that are no vectors are refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contracts_abi.errors import InputError
from simulation.margin.vectors import Json, RefusedCase, VectorCase, cases_of, readers, reads
from simulation.margin.vectors import _readers as entered

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT.parent / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the venue's vectors are not part of the project: no ../shared/vectors"
)


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("margin_vectors", ROOT / "scripts" / "margin_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["margin_vectors"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


script = load_script()


# --------------------------------------------------------------------------------------- the published cases


@needs_vectors
@pytest.mark.parametrize("entry", script.SETS, ids=lambda entry: f"{entry.method}-{entry.files}")
def test_every_published_case_is_reproduced(entry: Any) -> None:
    files = sorted(VECTORS.glob(entry.files))
    assert files
    outcome = script.measured(entry, VECTORS)
    assert not outcome.wrong
    assert not outcome.failures, outcome.failures[:3]
    held = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if entry.method == "deribit.spm":
        # Beside its cases the file has a note.
        held = [{key: case for key, case in value.items() if isinstance(case, dict)} for value in held]
    one_each = entry.method.startswith("derive.pmrm2")
    assert outcome.cases + outcome.refused + outcome.aside == (
        len(files) if one_each else sum(map(len, held))
    )
    assert outcome.cases >= 2
    assert len(outcome.figures) >= 2 * outcome.cases


def test_no_case_is_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not script.measured(script.SETS[0], tmp_path).passed
    before = script.GUIDE.read_text(encoding="utf-8")
    assert script.main(["--vectors", str(tmp_path), "--write"]) == 2
    assert "error: no case in " in capsys.readouterr().err
    assert script.GUIDE.read_text(encoding="utf-8") == before


@needs_vectors
def test_errors_are_those_of_floats() -> None:
    """The reference states 1e-14 for margins; four orders more would mean another formula somewhere."""
    for entry in script.SETS:
        outcome = script.measured(entry, VECTORS)
        margins = [figure.error for figure in outcome.figures if figure.figure in ("im", "mm")]
        assert max(margins, default=0.0) < 1e-12, entry


@needs_vectors
def test_scenarios_are_in_the_order_of_the_file() -> None:
    """Two neighbours exchanged would be found: no two scenarios of the call spread are worth the same."""
    (file,) = VECTORS.glob("pmrm_2/test_44_*.json")
    value = json.loads(file.read_text(encoding="utf-8"))
    (case,) = cases_of("derive.pmrm2", file.stem, value)
    rows = case.record()["scenarios"]
    rows[3], rows[4] = rows[4], rows[3]
    swapped = list(script.differences(script.SETS[0], {**case.record(), "scenarios": rows}, value))
    assert [figure.figure for figure in swapped if not figure.fits] == ["scenario 3", "scenario 4"]


@needs_vectors
def test_invalid_parameters_are_refused_with_the_reason() -> None:
    (file,) = VECTORS.glob("pmrm_2/test_67_*.json")
    (case,) = cases_of("derive.pmrm2", file.stem, json.loads(file.read_text(encoding="utf-8")))
    assert case.record() == {
        "case": file.stem,
        "refused": "a Linear skew moves the price by 1.18; its spot_shock is 1",
    }


@needs_vectors
def test_the_guide_has_what_is_measured() -> None:
    rows = script.table([script.measured(entry, VECTORS) for entry in script.SETS])
    told = script.GUIDE.read_text(encoding="utf-8").partition(script.BEGIN)[2].partition(script.END)[0]

    def counts(lines: list[str]) -> list[list[str]]:
        """Return rows without the largest error, whose last digits are the processor's."""
        return [[cell for i, cell in enumerate(line.split("|")) if i != 7] for line in lines]

    assert counts(told.strip().splitlines()) == counts(rows), "python scripts/margin_vectors.py --write"


# ------------------------------------------------------------------------------------------- the comparison


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [(824.9999999999998, 825, True), (824.99, 825, False), (-1249.7, -1249, True), (-1250.0, -1249, False)],
)
def test_whole_dollars_are_cut_off_toward_zero_after_a_guard(ours: float, theirs: float, fits: bool) -> None:
    assert script.whole("case", "im", ours, theirs).fits is fits


def test_a_relative_difference_beyond_one_in_a_billion_fails() -> None:
    assert script.relative("case", "im", 1_000.0000005, 1_000.0).fits
    assert not script.relative("case", "im", 1_000.000002, 1_000.0).fits
    assert script.relative("case", "im", 1e-9, 0.0).fits
    assert not script.relative("case", "im", 1e-7, 0.0).fits


def test_the_script_says_that_there_are_no_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--vectors", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: no folder")


# ------------------------------------------------------------------------------------------ files and readers


def srm_case(**changes: Any) -> dict[str, Any]:
    """Return a written-out case of one perpetual."""
    params = {
        "im_perp": 0.1,
        "mm_perp": 0.05,
        "base_margin_factor": 0.8,
        "base_im_scale": 1.0,
        "max_spot_req": 0.15,
        "min_spot_req": 0.1,
        "mm_call_spot_req": 0.075,
        "mm_put_spot_req": 0.075,
        "mm_put_mtm_req": 0.075,
        "unpaired_im_scale": 1.2,
        "unpaired_mm_scale": 1.1,
        "mm_offset_scale": 1.05,
        "perp_confidence_threshold": 0.4,
        "option_confidence_threshold": 0.4,
        "base_confidence_threshold": 0.4,
        "oracle_contingency_factor": 0.4,
        "depeg_threshold": 0.98,
        "depeg_factor": 1.2,
    }
    market = {
        "underlying": "ETH",
        "spot": 2_000.0,
        "spot_confidence": 1.0,
        "base_qty": 0.0,
        "perp": {"qty": -2.0, "price": 2_010.0, "confidence": 1.0, "unrealised": 30.0},
        "expiries": [],
    }
    return {
        "cash": 500.0,
        "stable_price": 1.0,
        "markets": [market],
        "params": params | changes,
        "expected": {"im": 0, "mm": 0},
    }


def test_a_file_of_several_cases_names_them_by_stem_and_key() -> None:
    first, second = cases_of("derive.srm", "own", {"a": srm_case(), "b": srm_case(im_perp=0.2)})
    assert first.record() == {"case": "own:a", "im": 500 + 30 - 0.1 * 4_020, "mm": 500 + 30 - 0.05 * 4_020}
    assert second.name == "own:b"
    assert second.record()["im"] == 500 + 30 - 0.2 * 4_020


def test_a_figure_that_the_file_lacks_is_not_shown() -> None:
    with_mark = srm_case() | {"expected": {"im": 0, "mm": 0, "mtm": 0}}
    (case,) = cases_of("derive.srm", "own", {"a": with_mark})
    assert case.record()["mtm"] == 530.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"im_perp": 0.04}, "perp: im 0.04 is below mm 0.05"),
        ({"min_spot_req": 0.2}, "min_spot_req 0.2 is above max_spot_req 0.15"),
        ({"base_im_scale": -1}, "im_scale"),
        ({"depeg_factor": float("nan")}, "depeg_factor"),
    ],
)
def test_crossed_bounds_refuse_one_case_and_not_the_file(changes: dict[str, Any], reason: str) -> None:
    bad, good = cases_of("derive.srm", "own", {"bad": srm_case(**changes), "good": srm_case()})
    assert isinstance(bad, RefusedCase)
    assert set(bad.record()) == {"case", "refused"}
    assert reason.partition(": ")[2] in bad.reason
    assert "\n" not in bad.reason
    assert "refused" not in good.record()


@pytest.mark.parametrize(
    ("times", "reason"), [((60, 60), "two expiries in 60 seconds"), ((60.5,), "no whole number of seconds")]
)
def test_times_that_cannot_be_refuse_one_case(times: tuple[float, ...], reason: str) -> None:
    bad = srm_case()
    bad["markets"][0]["expiries"] = [
        {"seconds": time, "forward": 2_000.0, "confidence": 1.0, "options": []} for time in times
    ]
    refused, good = cases_of("derive.srm", "own", {"bad": bad, "good": srm_case()})
    assert reason in refused.record()["refused"]
    assert "refused" not in good.record()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        3,
        None,
        "text",
        {"a": 1},
        {"a": {}},
        {"a": srm_case() | {"cash": None}},
        {"a": srm_case() | {"cash": "much"}},
        {"a": srm_case() | {"cash": True}},
        {"a": srm_case() | {"markets": [{}]}},
    ],
)
@pytest.mark.parametrize("method", ["derive.pmrm2", "derive.pmrm", "derive.srm", "derive.auction"])
def test_another_schema_is_one_line_that_names_the_file(method: str, value: Json) -> None:
    with pytest.raises(InputError, match=r"^some/file\.json: ") as refused:
        cases_of(method, "file", value, where="some/file.json")
    assert "\n" not in str(refused.value)


def test_a_method_without_vectors_is_told_from_one_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no venue publishes cases of cross"):
        cases_of("cross", "file", {})
    with pytest.raises(InputError, match=r"did you mean 'derive\.srm'"):
        cases_of("derive.srn", "file", {})


def test_another_module_enters_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.margin.vectors._readers", dict(entered))
    assert "cross" not in readers()

    @reads("cross")
    def read(stem: str, value: Json) -> Iterator[VectorCase]:
        yield RefusedCase(stem, value)

    (case,) = cases_of("cross", "file", "nothing to compute")
    assert case.record() == {"case": "file", "refused": "nothing to compute"}
