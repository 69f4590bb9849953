"""Event packs: bands that do not move, figures that repeat, verdicts that are never too kind."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from contracts_abi.errors import InputError, UnknownNameError
from keeper.cli import app
from simulation.contagion.metrics import static_sensitivity
from simulation.contagion.packs import build, pack_folder, pack_names, statistics
from simulation.contagion.packs.build import changed, pack_scenario, value_at
from simulation.contagion.packs.files import Band, Pack, Target, load_pack
from simulation.contagion.packs.fit import PATHS, SEED, figures_at, fit, fitted_targets, loss_of
from simulation.contagion.packs.ladder import LadderSpec, ladder_book
from simulation.contagion.packs.run import mean_of, run_pack, spread_of, verdict
from simulation.contagion.packs.statistics import measure, require_statistic
from simulation.contagion.world import build_world
from tests.contagion_books import one_pair_book, run_of

ROOT = Path(__file__).resolve().parents[2]
CAPO, CRV, AUGUST = "capo-2026-03-10", "crv-2022-11-22", "2024-08-05"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"marginline_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = script("packs_page")


def packed(name: str) -> Pack:
    return load_pack(pack_folder(name))


@pytest.fixture(scope="module")
def records() -> dict[str, dict[str, Any]]:
    """Return what each pack comes to with its own paths, without its ranges."""
    return {name: run_pack(packed(name), version="", spread=False) for name in pack_names()}


# --------------------------------------------------------------------------------------------------- bands


def test_the_three_events_are_there() -> None:
    assert set(pack_names()) == {CAPO, CRV, AUGUST}


@pytest.mark.parametrize("name", pack_names())
def test_every_target_has_source_band_and_reason(name: str) -> None:
    pack = packed(name)
    assert pack.role("held out")
    assert pack.role("calibrated")
    for target in pack.targets:
        low, high = target.bounds
        assert low < target.published[0] <= target.published[1] < high
        assert target.source
        assert target.why
        assert target.grade in "PSRKM"
    # Fitted to more figures than there are parameters, or to as many: never to fewer.
    assert len(pack.fitted) <= len(fitted_targets(pack))
    for parameter in pack.file.parameter:
        assert parameter.low <= value_at(build.pack_table(pack), parameter.keys[0]) <= parameter.high


@pytest.mark.parametrize("name", pack_names())
def test_bands_are_those_of_the_commit_before_calibration(name: str) -> None:
    pack = packed(name)
    path = f"simulation/contagion/packs/{name}/targets.toml"
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git")
    shown = subprocess.run(
        [git, "-C", str(ROOT), "show", f"{pack.file.targets_commit}:{path}"], capture_output=True, check=False
    )
    if shown.returncode:
        pytest.skip(f"no commit {pack.file.targets_commit} here")
    assert shown.stdout == (ROOT / path).read_bytes()
    assert hashlib.sha256(shown.stdout).hexdigest() == pack.file.targets_sha256
    earlier = subprocess.run(
        [git, "-C", str(ROOT), "ls-tree", "--name-only", pack.file.targets_commit, f"{Path(path).parent}/"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert earlier == [path]


def test_a_moved_band_is_refused(tmp_path: Path) -> None:
    own = tmp_path / CAPO
    shutil.copytree(pack_folder(CAPO), own)
    assert load_pack(own).targets == packed(CAPO).targets
    file = own / "targets.toml"
    file.write_text(file.read_text().replace("relative = 0.05", "relative = 0.50"))
    with pytest.raises(InputError, match="bands do not move afterwards"):
        load_pack(own)


def target(role: str, **band: float) -> Target:
    return Target.model_validate(
        {
            "name": "x",
            "meaning": "x",
            "statistic": "bad_debt_usd",
            "published": [90.0, 110.0],
            "unit": "",
            "source": "x",
            "grade": "S",
            "role": role,
            "band": band,
            "why": "x",
        }
    )


@pytest.mark.parametrize(
    ("role", "value", "said"),
    [
        ("held out", 81.0, "hit"),
        ("held out", 80.9, "miss"),
        ("held out", 121.1, "miss"),
        ("held out", float("nan"), "miss"),
        ("calibrated", 100.0, "calibrated"),
        ("calibrated", 80.9, "calibration off"),
    ],
)
def test_verdicts(role: str, value: float, said: str) -> None:
    assert verdict(target(role, relative=0.1), value) == said


def test_an_absolute_band_stands_around_zero_too() -> None:
    own = target("held out", absolute=5.0)
    assert own.bounds == (85.0, 115.0)
    with pytest.raises(ValueError, match="relative or absolute"):
        Band.model_validate({"relative": 0.1, "absolute": 1.0})


@pytest.mark.parametrize("name", pack_names())
def test_a_calibrated_figure_is_no_hit(name: str, records: dict[str, dict[str, Any]]) -> None:
    for own in records[name]["targets"]:
        low, high = own["band"]
        within = low <= own["simulated"]["value"] <= high
        assert (
            own["verdict"]
            == {
                ("held out", True): "hit",
                ("held out", False): "miss",
                ("calibrated", True): "calibrated",
                ("calibrated", False): "calibration off",
            }[own["role"], within]
        )


# ------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("name", pack_names())
def test_calibrated_values_meet_what_they_were_fitted_to(name: str) -> None:
    pack, bare = packed(name), load_pack(pack_folder(name), calibrated=False)
    found = figures_at(bare, pack.values, paths=PATHS, seed=SEED)
    for own in fitted_targets(pack):
        assert own.met(found[own.name]), (own.name, found[own.name])
    # No small step of a parameter comes nearer by more than the noise of the paths; of the quick ones.
    here = loss_of(fitted_targets(pack), found)
    for parameter in pack.fitted if name != CRV else ():
        for factor in (0.9, 1.1):
            moved = {**pack.values, parameter.name: pack.values[parameter.name] * factor}
            there = figures_at(bare, moved, paths=PATHS, seed=SEED)
            assert loss_of(fitted_targets(pack), there) > here - 0.05, (parameter.name, factor)


def test_the_search_finds_what_is_committed() -> None:
    found = fit(load_pack(pack_folder(CAPO), calibrated=False))
    text = (pack_folder(CAPO) / "calibrated.toml").read_text(encoding="utf-8")
    assert script("calibrate_packs").written(found) == text


def test_the_search_looks_at_no_held_out_figure() -> None:
    bare = load_pack(pack_folder(CAPO), calibrated=False)
    other = tuple(
        t.model_copy(update={"published": (1.0, 1.0)}) if t.role == "held out" else t for t in bare.targets
    )
    assert fit(replace(bare, targets=other), paths=1, most_runs=8) == fit(bare, paths=1, most_runs=8)


def test_a_value_outside_its_range_is_refused(tmp_path: Path) -> None:
    own = tmp_path / CAPO
    shutil.copytree(pack_folder(CAPO), own)
    (own / "calibrated.toml").write_text('[values]\n"accounts up to 1.06" = 7000\n"mean debt" = 1e6\n')
    with pytest.raises(InputError, match=r"accounts up to 1\.06 is 7000"):
        load_pack(own)
    (own / "calibrated.toml").write_text('[values]\n"mean debt" = 1e6\n')
    with pytest.raises(InputError, match=r"accounts up to 1\.06 is missing"):
        load_pack(own)


# ------------------------------------------------------------------------------------------------ repeatable


def test_the_same_run_has_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = json.dumps(run_pack(packed(CAPO), version="", paths=3))
    # Nor does it matter how many paths go together.
    monkeypatch.setattr(statistics, "BATCH", 2)
    assert one == json.dumps(run_pack(packed(CAPO), version="", paths=3))
    plain = json.dumps(run_pack(packed(CRV), version="", paths=3, spread=False))
    assert plain == json.dumps(run_pack(packed(CRV), version="", paths=3, spread=False))
    assert plain != json.dumps(run_pack(packed(CRV), version="", paths=3, spread=False, seed=12))


def test_the_page_says_what_the_packs_come_to(records: dict[str, dict[str, Any]]) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name, record in records.items():
        assert page.put(text, page.rendered(record)) == text, f"{name}: run python scripts/packs_page.py"


# ------------------------------------------------------------------------------------------------ the events


def test_what_a_wrong_price_moves_follows_from_bonus_and_error() -> None:
    """Where no price moves collateral c goes for debt c * 0.9715 / 1.01; a tenth of the bonus is a fee."""
    over = {"scenario.prices.volatility": 0.0, "scenario.channels.impact.on": False}
    still = pack_scenario(packed(CAPO), over)
    found = measure(
        still.run,
        1,
        1,
        [
            "seized_tokens.wstETH",
            "borrowers_loss.WETH",
            "liquidators_gain.WETH",
            "seized_usd.wstETH",
            "seized_usd",
        ],
    )
    taken = found["seized_tokens.wstETH"][0] * 1.2288
    lost = taken * (1.0 - 0.9715 / 1.01)
    fee = taken * (1.0 - 1.0 / 1.01) * 0.1
    assert found["borrowers_loss.WETH"][0] == pytest.approx(lost, rel=1e-6)
    assert found["liquidators_gain.WETH"][0] == pytest.approx(lost - fee, rel=1e-6)
    assert found["seized_usd.wstETH"][0] == pytest.approx(found["seized_usd"][0], rel=1e-9)
    assert found["seized_usd"][0] == pytest.approx(taken * 2_016.0, rel=1e-9)


def test_guards_on_the_distance_from_the_market_let_nobody_be_liquidated(
    records: dict[str, dict[str, Any]],
) -> None:
    (guarded, sound) = records[CAPO]["compared"]
    for other in (guarded, sound):
        assert other["figures"]["seized_usd"]["pack"]["value"] > 2e7
        assert other["figures"]["seized_usd"]["here"]["value"] == 0.0
        assert other["figures"]["accounts"]["here"]["value"] == 0.0


def test_no_event_needs_a_network_or_a_clock(records: dict[str, dict[str, Any]]) -> None:
    """Sockets are closed in these tests; what was run is told by its digests."""
    for name, record in records.items():
        assert len(record["pack_sha256"]) == 64
        assert record["targets_sha256"] == packed(name).file.targets_sha256
        assert record["spread"] is None
        assert spread_of(record, record["targets"][0]["name"]) is None


# ------------------------------------------------------------------------------------------------ statistics


def test_liquidatable_is_the_static_sensitivity_of_a_book_that_nobody_touched() -> None:
    book = one_pair_book(np.linspace(1.3, 3.0, 40), np.ones(40), kind="aave-v3", price=1.0)
    run = run_of(book, {}, steps=2)
    for price in (0.9, 0.6, 0.5):
        static = static_sensitivity(build_world(book), "ETH", np.array([price - 1.0]))
        (found,) = measure(run, 1, 1, [f"liquidatable_usd.ETH@{price}"]).values()
        assert found[0] == pytest.approx(static["debt_usd"][0])
        assert found[0] > 0.0


def test_bad_debt_in_tokens_is_what_no_collateral_stands_behind() -> None:
    # Aave V2 takes half at a time: 1 of collateral at 0.5 for 10 of debt is gone in one call.
    book = one_pair_book([1.0, 30.0], [10.0, 10.0], kind="aave-v2", bonus_bps=0)
    run = run_of(book, {"keepers": {}}, steps=3, shock=float(np.log(0.5)))
    found = measure(
        run,
        1,
        2,
        ["bad_debt_tokens.USD", "seized_tokens.ETH", "accounts", "liquidators", "highest.ETH", "lowest.ETH"],
    )
    assert found["bad_debt_tokens.USD"].tolist() == pytest.approx([9.5, 9.5])
    # Nobody liquidates: 10 of debt, less the 0.5 that the collateral is worth.
    idle = measure(run_of(book, {}, steps=1, shock=float(np.log(0.5))), 1, 1, ["bad_debt_tokens.USD"])
    assert idle["bad_debt_tokens.USD"].tolist() == pytest.approx([9.5])
    assert found["seized_tokens.ETH"].tolist() == pytest.approx([1.0, 1.0])
    assert found["accounts"].tolist() == found["liquidators"].tolist() == [1.0, 1.0]
    assert found["highest.ETH"].tolist() == found["lowest.ETH"].tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("seized_tokens", "needs a token"),
        ("liquidatable_usd.WETH", "a token and a price"),
        ("liquidatable_usd.WETH@-3", "a token and a price"),
        ("bad_debt", "did you mean"),
    ],
)
def test_a_statistic_that_is_none_is_refused(name: str, told: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=told):
        require_statistic(name)


# ----------------------------------------------------------------------------------------------------- books


def ladder(**other: Any) -> LadderSpec:
    plain = {
        "venue": "aave",
        "collateral": "wstETH",
        "debt": "WETH",
        "emode": 1,
        "accounts": 50,
        "mean_debt_usd": 1_000.0,
        "health": [1.0, 1.5],
    }
    return LadderSpec.model_validate({**plain, **other})


def test_a_ladder_is_even_in_health_and_has_the_mean_it_was_given() -> None:
    market = pack_scenario(packed(CAPO)).book
    world = build_world(ladder_book(market, [ladder()], 3))
    owe = world.debt[:, 0] * world.price[world.token("WETH")]
    health = world.coll[:, 0] * world.price[world.token("wstETH")] * 0.95 / owe
    np.testing.assert_allclose(np.sort(health), 1.0 + 0.5 * (np.arange(50) + 0.5) / 50)
    assert owe.mean() == pytest.approx(1_000.0)
    assert owe.std() > 500.0
    other = build_world(ladder_book(market, [ladder()], 4))
    assert not np.allclose(other.debt, world.debt)
    np.testing.assert_allclose(np.sort(other.debt, axis=0), np.sort(world.debt, axis=0))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"venue": "spark"}, "no venue spark"),
        ({"collateral": "WBTC"}, "does not list WBTC"),
        ({"emode": 3}, "no category 3"),
    ],
)
def test_a_ladder_that_does_not_fit_the_market_is_refused(other: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ladder_book(pack_scenario(packed(CAPO)).book, [ladder(**other)], 1)


@pytest.mark.parametrize(
    ("name", "over", "told"),
    [
        (CAPO, {"ladder.0.accounts": 0}, "capo-2026-03-10: ladder: accounts"),
        (AUGUST, {"generate.near": "few"}, "generate.near is 'few'"),
        (AUGUST, {"generate.nearly": 1}, "did you mean"),
        (CRV, {"scenario.steps": 0}, "crv-2022-11-22/scenario.toml: steps"),
        (CRV, {"scenario.book": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, over: dict[str, Any], told: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=told) as caught:
        pack_scenario(packed(name), over)
    assert "\n" not in str(caught.value)


def test_a_star_changes_every_entry() -> None:
    table = {"scenario": {"keepers": [{"a": 1}, {"a": 2}], "points": [[0, 1.0], [5, 2.0]]}}
    new = changed(table, {"scenario.keepers.*.a": 7, "scenario.points.1.1": 3.0, "scenario.x.y": True})
    assert new["scenario"] == {
        "keepers": [{"a": 7}, {"a": 7}],
        "points": [[0, 1.0], [5, 3.0]],
        "x": {"y": True},
    }
    assert table["scenario"]["keepers"] == [{"a": 1}, {"a": 2}]
    with pytest.raises(InputError, match="no entry 2 of 2"):
        changed(table, {"scenario.points.2.1": 3.0})
    with pytest.raises(InputError, match="not in the pack's files"):
        value_at(table, "scenario.keeper.0.a")


# ------------------------------------------------------------------------------------------------ the command


def run_cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["pack", *arguments])


def test_the_command_lists_shows_and_runs(tmp_path: Path) -> None:
    listed = run_cli("list", "--json")
    assert [p["name"] for p in json.loads(listed.stdout)] == list(pack_names())
    shown = json.loads(run_cli("show", CRV, "--json").stdout)
    assert {t["name"] for t in shown["targets"]} >= {"bad debt, CRV", "liquidations"}
    ran = run_cli("run", CAPO, "--paths", "3", "--no-spread", "--json", "--out", str(tmp_path / "new"))
    assert ran.exit_code == 0
    assert (tmp_path / "new" / f"{CAPO}.json").read_text(encoding="utf-8") == ran.stdout
    record = json.loads(ran.stdout)
    assert record["paths"] == 3
    for text in (run_cli("list"), run_cli("show", AUGUST), run_cli("run", CAPO, "--paths", "2")):
        assert text.exit_code == 0
        assert text.stdout


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean") as caught:
        pack_folder("capo-2026-03-1")
    assert CAPO in str(caught.value)


def test_a_miss_is_no_failure(tmp_path: Path) -> None:
    """Verdicts are results: a pack that misses everything ends with 0."""
    own = tmp_path / CAPO
    shutil.copytree(pack_folder(CAPO), own)
    file = own / "targets.toml"
    file.write_text(file.read_text().replace("513.19, 513.19", "1.0, 1.0"))
    pack = own / "pack.toml"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    pack.write_text(pack.read_text().replace(packed(CAPO).file.targets_sha256, digest))
    ran = run_cli("run", str(own), "--paths", "2", "--no-spread", "--json")
    assert ran.exit_code == 0
    said = {t["name"]: t["verdict"] for t in json.loads(ran.stdout)["targets"]}
    assert said["borrowers' loss"] == "miss"


def test_the_mean_is_that_of_the_paths() -> None:
    values = np.arange(40.0)
    assert mean_of(values).value == 19.5
    assert mean_of(values).low < 19.5 < mean_of(values).high
