"""The screen's certainty against Aave's exact health factors, on positions read from a chain."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulation.chain import revm
from simulation.fixed_point import WAD
from simulation.screen import ScreenStatus, build_screen
from tests.parity.crash import VERSIONS, Crash, Version

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certain_status_is_the_contracts_own(version: Version) -> None:
    crash = Crash(accounts=300, seed=11, version=version)
    market = crash.read_market()
    book = crash.read_book(market)
    screen = build_screen(book, crash.adapter.screen_rounding(market))
    rng = np.random.default_rng(1)
    seen: Counter[ScreenStatus] = Counter()
    states = [book.exact[row] for row in range(len(book))]
    for _ in range(12):
        prices_base = {
            symbol: int(price * rng.uniform(0.5, 1.6)) for symbol, price in market.prices_base.items()
        }
        priced = market.with_prices(prices_base)
        factors = [crash.adapter.user_account_data(priced, state).health_factor_wad for state in states]
        health, status = screen.run([prices_base[asset.symbol] / 1e8 for asset in book.assets]).by_row()
        for row, factor_wad in enumerate(factors):
            seen[ScreenStatus(status[row])] += 1
            if status[row] == ScreenStatus.HEALTHY:
                assert factor_wad >= WAD, book.accounts[row]
            elif status[row] == ScreenStatus.LIQUIDATABLE:
                assert factor_wad < WAD, book.accounts[row]
            # The contract's factor falls short of the real quotient by a basis point of threshold at most.
            assert factor_wad / WAD == pytest.approx(health[row], rel=2e-4)
    assert min(seen[ScreenStatus.HEALTHY], seen[ScreenStatus.LIQUIDATABLE]) > 100, seen
    assert seen[ScreenStatus.NEAR] < sum(seen.values()) / 100, seen
