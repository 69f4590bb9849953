"""What a reader would do with a replay's output: run both proofs, and open the page in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts_abi.errors import ToolError
from simulation.chain.solc import solc_program
from simulation.chain.toolchain import ensure_toolchain, locate_forge
from simulation.report.oracle_html import render_replay_html
from simulation.report.oracle_poc import render_poc
from tests.command_line import ROOT
from tests.replay_record import replay_record, with_answers

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proof's files, as they are written."""
    path = tmp_path_factory.mktemp("poc")
    for name, text in render_poc(replay_record()).items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def python(folder: Path) -> subprocess.CompletedProcess[str]:
    ensure_toolchain()
    return subprocess.run(
        [sys.executable, "replay.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_script_holds_on_a_local_chain(folder: Path) -> None:
    done = python(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "every figure is as reported"
    assert "84691" in done.stdout


def test_the_script_fails_when_a_figure_is_wrong(folder: Path, tmp_path: Path) -> None:
    text = (folder / "replay.py").read_text(encoding="utf-8")
    (tmp_path / "replay.py").write_text(text.replace(", 1889)", ", 1888)"), encoding="utf-8")
    done = python(tmp_path)
    assert done.returncode != 0
    assert "1889 bps at" in done.stderr


def forge(folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        program, compiler = locate_forge(), solc_program("0.8.19")
    except ToolError as error:
        pytest.skip(f"no Foundry to run it with: {error}")
    return subprocess.run(
        [program, "test", "--use", compiler, "--offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_foundry_test_passes(folder: Path) -> None:
    done = forge(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 tests passed, 0 failed" in done.stdout


def test_the_foundry_test_fails_when_a_figure_is_wrong(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8").replace(", 84691);", ", 84690);")
            (tmp_path / file.name).write_text(text, encoding="utf-8")
    done = forge(tmp_path)
    assert done.returncode != 0
    assert "divergence" in done.stdout


ONE = 10**8


@pytest.mark.parametrize(
    ("answers", "decimals"),
    [
        ([(112 * 10**6, "2200")], 8),  # far too low, as when a leg is missing
        ([(ONE, "1"), (0, "1"), (None, "1")], 8),  # zero, then nothing
        ([(None, "1"), (-5 * ONE, "1"), (ONE, "1")], 8),  # nothing first, then below zero
        ([(2 * 10**36 + 1_998, "1"), (10**36, "1")], 36),
        ([(2_600 * 10**30, "2600")], 18),  # off by a trillion
        ([(3, "2")], 0),
    ],
)
def test_both_proofs_hold_for_answers_of_any_kind(
    tmp_path: Path, answers: list[tuple[int | None, str]], decimals: int
) -> None:
    for name, text in render_poc(with_answers(answers, decimals)).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    by_script = python(tmp_path)
    assert by_script.returncode == 0, by_script.stderr
    by_foundry = forge(tmp_path)
    assert by_foundry.returncode == 0, by_foundry.stdout + by_foundry.stderr


def test_a_browser_draws_the_page_without_a_network(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on PATH to open the page with")
    page = tmp_path / "report.html"
    page.write_text(render_replay_html(replay_record()), encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--enable-logging=stderr", "--virtual-time-budget=8000"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    drawn = re.findall(r'class="figure js-plotly-plot" data-spec="([\w-]+)"', done.stdout)
    assert drawn == ["spec-price-0", "spec-deviation-0", "spec-bad-debt"]
    assert done.stdout.count('class="main-svg"') >= len(drawn)
