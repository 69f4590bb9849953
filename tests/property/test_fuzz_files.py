"""Files from anywhere: whatever their bytes are, they are read or refused in one line.

`MARGINLINE_FUZZ=100000 pytest tests/property/test_fuzz_files.py` runs the full size.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from contracts_abi.errors import MarginlineError
from oracle.incidents import incident_ids, incident_path
from oracle.scenario import parse_scenario
from oracle.sources import sources

COUNT = int(os.environ.get("MARGINLINE_FUZZ", "1500"))
SEEDS = [incident_path(i).read_bytes() for i in incident_ids()]
ROUNDS = b"round,answer,start,update,answeredInRound\n" + b"".join(
    b"%d,%d,%d,%d,%d\n" % ((6 << 64) + i, 2_000 * 10**8 + i, t, t, (6 << 64) + i)
    for i, t in ((i, 1_700_000_000 + i * 3_600) for i in range(20, 0, -1))
)
WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"1e400",
    b"9" * 60,
    b"",
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"[[",
    b"2020-13-45",
    b"\n",
    b",",
)


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Return the bytes with a few pieces cut out, doubled, turned or put in."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, size = int(rng.integers(0, len(out) + 1)), int(rng.integers(0, 30))
        match int(rng.integers(0, 4)):
            case 0:
                del out[at : at + size]
            case 1:
                out[at:at] = out[at : at + size]
            case 2 if at < len(out):
                out[at] = int(rng.integers(0, 256))
            case _:
                out[at : at + size] = WORDS[int(rng.integers(0, len(WORDS)))]
    return bytes(out)


def test_scenarios_are_read_or_refused_in_one_line() -> None:
    rng = np.random.default_rng(20200312)
    refusals: list[str] = []
    for _ in range(COUNT):
        data = mutated(rng, SEEDS[int(rng.integers(0, len(SEEDS)))])
        try:
            parse_scenario(data, "fuzzed")
        except MarginlineError as error:
            refusals.append(str(error))
    assert len(refusals) > COUNT // 2
    assert [line for line in refusals if "\n" in line] == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_round_dumps_are_read_or_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / f"rounds{suffix}"
    refusals: list[str] = []
    for _ in range(COUNT):
        path.write_bytes(mutated(rng, ROUNDS))
        config = {
            "kind": "recorded",
            "base": "ETH",
            "quote": "USD",
            "path": path,
            "decimals": 8,
            "time": "update",
            "price": "answer",
            "round": "round",
            "answered": "answeredInRound",
            "price_is": "raw",
            "order": "descending",
        }
        try:
            sources.build(config)
        except MarginlineError as error:
            refusals.append(str(error))
    assert refusals
    assert [line for line in refusals if "\n" in line] == []
