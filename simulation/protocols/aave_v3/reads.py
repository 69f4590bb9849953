"""What all versions of Aave V3 read alike: whether a market is still laid out as found, and its accounts."""

from __future__ import annotations

from collections.abc import Sequence

from eth_utils.address import to_checksum_address

from contracts_abi import aave_v3 as abi
from contracts_abi import lens
from contracts_abi.errors import DataError
from simulation.protocols.aave_v3.layout import AaveLayout, Reads


def check_layout(layout: AaveLayout, oracle: str, sentinel: str, listed: Sequence[str]) -> None:
    """Raise `DataError` when the market has another oracle, sentinel or reserve list than `layout` says.

    Parameters
    ----------
    layout
        Where the market's parts were found.
    oracle, sentinel, listed
        What the provider and the pool answer now; no sentinel is empty.
    """
    fix = "the market was changed by its governance; discover its layout again"
    if oracle != layout.oracle:
        raise DataError(f"the market's oracle is {oracle}, expected {layout.oracle}", fix=fix)
    if sentinel != layout.sentinel:
        raise DataError(
            f"the market's price oracle sentinel is {sentinel or 'none'}, "
            f"expected {layout.sentinel or 'none'}",
            fix=fix,
        )
    known = {r.asset.address for r in layout.reserves}
    new = {str(to_checksum_address(a)) for a in listed} ^ known
    if new:
        raise DataError(f"reserves were listed or dropped: {', '.join(sorted(new))}", fix=fix)


def account_reads(
    layout: AaveLayout, accounts: Sequence[str], accounts_per_call: int, *, account_data: bool
) -> Reads:
    """Return the reads of positions: calls of the lens, else of Multicall3, else one for each word."""
    calls: Reads = []
    for part in _chunks(accounts, accounts_per_call):
        if layout.lens:
            calls.append(
                lens.accounts_call(layout.lens, layout.pool, part, layout.tokens, account_data=account_data)
            )
        elif layout.multicall:
            calls.append(
                lens.multicall_accounts_call(
                    layout.multicall, layout.pool, part, layout.tokens, account_data=account_data
                )
            )
        else:
            calls += [
                call for account in part for call in _single_reads(layout, account, account_data=account_data)
            ]
    return calls


def account_rows(
    layout: AaveLayout,
    accounts: Sequence[str],
    results: Sequence[bytes | None],
    accounts_per_call: int,
    *,
    account_data: bool,
) -> lens.LensRows:
    """Turn the answers of `account_reads` into rows; a call that failed leaves all of its accounts unread.

    Raises
    ------
    DataError
        If the answers are not those of `account_reads`.
    """
    reserves = len(layout.tokens) // 2
    if layout.lens or layout.multicall:
        calls = account_reads(layout, accounts, accounts_per_call, account_data=account_data)
        if len(calls) != len(results):
            raise DataError(f"{len(results)} answers for {len(calls)} account reads")
        parts = [
            _failed_rows(len(part), reserves) if data is None else call.decode(data)
            for part, call, data in zip(_chunks(accounts, accounts_per_call), calls, results, strict=True)
        ]
    else:
        parts = [lens.rows_from_results(results, len(accounts), reserves, account_data=account_data)]
    return lens.concatenate(parts) if parts else _failed_rows(0, reserves)


def _chunks(accounts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [accounts[i : i + size] for i in range(0, len(accounts), size)]


def _single_reads(layout: AaveLayout, account: str, *, account_data: bool) -> Reads:
    pool = layout.pool
    calls: Reads = [
        abi.GET_USER_CONFIGURATION.call(pool, account, label="configuration"),
        abi.GET_USER_EMODE.call(pool, account, label="eMode"),
    ]
    if account_data:
        calls.append(abi.GET_USER_ACCOUNT_DATA.call(pool, account, label="account data"))
    return calls + [abi.SCALED_BALANCE_OF.call(token, account) for token in layout.tokens]


def _failed_rows(accounts: int, reserves: int) -> lens.LensRows:
    """Return rows of accounts of which nothing could be read."""
    stride = 2 + 2 * reserves
    return lens.rows_from_results([None] * (stride * accounts), accounts, reserves, account_data=False)
