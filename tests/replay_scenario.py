"""A scenario as a user writes one: a feed that stops at its lower bound while the market falls on."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from oracle.scenario import Scenario, parse_scenario

BOUND = """
schema = "oracle-scenario/1"
id = "coin-at-its-floor"
title = "COIN stands at its floor while the market falls"
date = 2022-05-12
record = "stated"
depth = "deep"
mechanism = "bound"
summary = "The aggregator transmits nothing below its minimum, so the feed stays where it was."

[chain]
id = 56
kind = "l1"
block_time_s = 3

[clock]
start = 2022-05-12T08:00:00Z
end = 2022-05-12T10:00:00Z
step_s = 300

[assets]
COIN = { decimals = 18, pair = "COIN/USD" }
USDC = { decimals = 6 }

[truth."COIN/USD"]
points = [
  { t = 2022-05-12T08:00:00Z, price = "0.30", status = "stated", source = "test" },
  { t = 2022-05-12T09:00:00Z, price = "0.09", status = "stated", source = "test" },
  { t = 2022-05-12T10:00:00Z, price = "0.01", status = "stated", source = "test" },
]

[feeds."COIN/USD"]
kind = "chainlink"
decimals = 8
heartbeat_s = 3600
deviation_bps = 100
min_answer = 10000000
max_answer = 100000000000

[protocol]
model = "ltv"
close_factor_bps = 5000

[protocol.markets.COIN]
max_ltv_bps = 5500
liquidation_threshold_bps = 5500
liquidation_bonus_bps = 1000
slippage_bps = 500

[protocol.markets.USDC]
liquidity = "1000000"

[[positions]]
id = "saver"
collateral = { COIN = "1000000" }
debt = { USDC = "50000" }

[[actors]]
id = "attacker"
role = "borrower"
at = 2022-05-12T10:00:00Z
supplies = { COIN = "8000000" }
asset = "USDC"

[[expect]]
assert = "guard"
id = "G06"
feed = "COIN/USD"
by = 2022-05-12T09:30:00Z
action = "reject"

[[expect]]
assert = "attacker_profit_usd"
op = ">"
value = "100000"

[[expect]]
assert = "attacker_profit_usd"
op = "<="
value = "0"
with = "guarded"
"""


def scenario(text: str = BOUND, **changes: object) -> Scenario:
    """Return the scenario, with top-level keys replaced; None takes one away."""
    return parse_scenario(toml(tomllib.loads(text) | changes).encode(), "test")


def toml(raw: Mapping[str, Any]) -> str:
    """Return plain data as TOML, inline below the first level."""
    return "\n".join(f"{name} = {_value(value)}" for name, value in raw.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{k}" = {_value(v)}' for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
