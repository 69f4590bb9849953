"""AccountLens: positions and health of many Aave V3 accounts in one call, as arrays.

Two ways lead to the same `LensRows`: our own lens (``vyper/AccountLens.vy``), deployed or put in place for
one ``eth_call`` by a state override, and Multicall3 for a node that offers neither.

Answer of ``accounts(pool, users, tokens, accountData)``, in 256-bit words, n users::

    6 n   heads: status, configuration bitmap, eMode category, collateral, debt, health factor
    nnz   scaled balances: by user, then by reserve id, the collateral before the debt

How many balances an account has follows from its configuration bitmap: one for each reserve used as
collateral (bit 2 id + 1), one for each reserve borrowed (bit 2 id). A supply that is not used as collateral
is not there: it neither counts for the account's health nor can be seized.

Only variable debt is read. An account with stable debt (first revision only) shows in that the contract's
`DEBT_BASE` exceeds what the balances add up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from numpy.typing import NDArray

from contracts_abi import aave_v3, multicall
from contracts_abi.calls import Call, function
from contracts_abi.errors import DataError

Words: TypeAlias = NDArray[np.uint64]
"""Unsigned 256-bit words: last axis of four big-endian 64-bit limbs, the highest first."""

LENS_ADDRESS: Final = to_checksum_address(keccak(text="marginline: AccountLens")[12:])
"""Where a state override puts the lens when it is not deployed; nobody has a key of it."""

ACCOUNTS = function("accounts(address,address[],address[],bool)(uint256[])")
MARKET = function("market(address,address,address[],address[])(uint256[])")

STATUS: Final = 0
CONFIGURATION: Final = 1
EMODE_CATEGORY: Final = 2
COLLATERAL_BASE: Final = 3
DEBT_BASE: Final = 4
HEALTH_FACTOR_WAD: Final = 5
HEAD: Final = 6
"""Columns of a row before the positions; position column c of `LensRows.column` is column ``HEAD + c``."""

MAX_USERS: Final = 2_000
"""Most accounts that one call of the lens takes."""

_WORD: Final = 32
_BIG_ENDIAN: Final = np.dtype(">u8")
_LIMBS: Final = 4
_MARKET_HEAD: Final = 2
_MARKET_ROW: Final = 10
_UINT256_END: Final = 1 << 256


class LensStatus(IntEnum):
    """What the lens could read of an account. Only `OK` and `NO_ACCOUNT_DATA` have whole positions."""

    FAILED = 0
    OK = 1
    NO_ACCOUNT_DATA = 2
    UNLISTED_RESERVE = 3


def collateral_column(reserve_id: int) -> int:
    """Return the position column of a reserve's scaled aToken balance."""
    return 2 * reserve_id


def debt_column(reserve_id: int) -> int:
    """Return the position column of a reserve's scaled variable debt."""
    return 2 * reserve_id + 1


def words_to_float64(words: Words) -> NDArray[np.float64]:
    """Return 256-bit words as float64.

    The relative error is at most 2**-51: each limb is rounded once (2**-53), the three sums once each, and
    scaling by powers of two is exact. A word below 2**53 is exact.

    Parameters
    ----------
    words
        Shape (…, 4).

    Returns
    -------
    ndarray
        float64, shape (…,).
    """
    limbs = words.astype(np.float64)
    total = limbs[..., 3] + limbs[..., 2] * 2.0**64
    total += limbs[..., 1] * 2.0**128
    total += limbs[..., 0] * 2.0**192
    return np.asarray(total, dtype=np.float64)


def word_to_int(word: Words) -> int:
    """Return one 256-bit word, shape (4,), exactly."""
    return int.from_bytes(word.tobytes(), "big")


@dataclass(frozen=True, slots=True)
class LensRows:
    """What the lens read of n accounts: exact words in compressed-row form.

    Attributes
    ----------
    reserves
        Number of reserve ids that were asked for.
    head
        Words, shape (n, 6, 4): see `STATUS` … `HEALTH_FACTOR_WAD`. The last three are zero unless the
        contract's own account data was asked for, and could be read.
    row_ptr
        int64, shape (n + 1,): account i owns the positions ``row_ptr[i]:row_ptr[i + 1]``.
    column
        int64, shape (nnz,): `collateral_column` or `debt_column` of each position, ascending in a row.
    values
        Words, shape (nnz, 4): scaled balances.
    """

    reserves: int
    head: Words
    row_ptr: NDArray[np.int64]
    column: NDArray[np.int64]
    values: Words

    def __len__(self) -> int:
        return len(self.head)

    @property
    def n(self) -> int:
        """Number of accounts."""
        return len(self.head)

    @property
    def status(self) -> NDArray[np.int64]:
        """int64, shape (n,), values of `LensStatus`."""
        return self.head[:, STATUS, _LIMBS - 1].astype(np.int64)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """bool, shape (n,): whether the positions are whole; where they are not, the account is unknown."""
        return np.isin(self.status, (LensStatus.OK, LensStatus.NO_ACCOUNT_DATA))

    def word(self, row: int, column: int) -> int:
        """Return one word exactly; a position that the account does not have is 0."""
        if not -self.n <= row < self.n or not 0 <= column < HEAD + 2 * self.reserves:
            raise IndexError(f"no word ({row}, {column}) in {self.n} rows of {self.reserves} reserves")
        if column < HEAD:
            return word_to_int(self.head[row, column])
        return self.positions(row).get(column - HEAD, 0)

    def positions(self, row: int) -> dict[int, int]:
        """Return the positions of a row exactly: position column to scaled balance."""
        row %= self.n
        start, end = int(self.row_ptr[row]), int(self.row_ptr[row + 1])
        raw = self.values[start:end].tobytes()
        return {
            int(column): int.from_bytes(raw[i * _WORD : (i + 1) * _WORD], "big")
            for i, column in enumerate(self.column[start:end])
        }

    def floats(self, column: int) -> NDArray[np.float64]:
        """Return a column of all rows as float64, shape (n,); error bound as in `words_to_float64`."""
        if not 0 <= column < HEAD + 2 * self.reserves:
            raise IndexError(f"no column {column} in rows of {self.reserves} reserves")
        if column < HEAD:
            return words_to_float64(self.head[:, column])
        out = np.zeros(self.n)
        here = np.nonzero(self.column == column - HEAD)[0]
        out[np.searchsorted(self.row_ptr, here, side="right") - 1] = words_to_float64(self.values[here])
        return out

    def value_floats(self) -> NDArray[np.float64]:
        """Return all scaled balances as float64, shape (nnz,), in the order of `column`."""
        return words_to_float64(self.values)


def concatenate(parts: Sequence[LensRows]) -> LensRows:
    """Return the rows of several answers, read with the same reserves, as one.

    Raises
    ------
    DataError
        If there are none, or the numbers of reserves differ.
    """
    if not parts or any(part.reserves != parts[0].reserves for part in parts):
        raise DataError("lens rows of different markets, or none, cannot be put together")
    ends = np.cumsum([0, *(len(part.column) for part in parts)])
    return LensRows(
        reserves=parts[0].reserves,
        # Without the type, numpy would turn the limbs to the machine's own byte order.
        head=np.concatenate([part.head for part in parts], dtype=_BIG_ENDIAN),
        row_ptr=np.concatenate(
            [parts[0].row_ptr, *(p.row_ptr[1:] + e for p, e in zip(parts[1:], ends[1:-1], strict=True))]
        ),
        column=np.concatenate([part.column for part in parts]),
        values=np.concatenate([part.values for part in parts], dtype=_BIG_ENDIAN),
    )


# --- through our own lens -----------------------------------------------------------------------------------


def encode_accounts(pool: str, users: Sequence[str], tokens: Sequence[str], *, account_data: bool) -> bytes:
    """Return calldata of ``accounts``; the general codec takes 30 times longer for a list of addresses."""
    tail = _address_words([pool]) + _int_word(4 * _WORD) + _int_word((5 + len(users)) * _WORD)
    return b"".join(
        (
            ACCOUNTS.selector,
            tail,
            _int_word(account_data),
            _int_word(len(users)),
            _address_words(users),
            _int_word(len(tokens)),
            _address_words(tokens),
        )
    )


def decode_accounts(data: bytes, users: int, reserves: int) -> LensRows:
    """Turn the answer of ``accounts`` into rows.

    Parameters
    ----------
    data
        Return data.
    users, reserves
        How many accounts and reserve ids were asked for.

    Raises
    ------
    DataError
        If `data` is not such an answer.
    """
    words = _answer_words(data, "accounts")
    if len(words) < HEAD * users:
        raise DataError(f"lens: {len(words)} words cannot hold the heads of {users} accounts")
    head = words[: HEAD * users].reshape(users, HEAD, _LIMBS)
    row_ptr, column = _position_pattern(head[:, CONFIGURATION], reserves)
    values = words[HEAD * users :]
    if len(values) != len(column):
        raise DataError(f"lens: {len(values)} balances, the configurations flag {len(column)}")
    return LensRows(reserves, head, row_ptr, column, values)


def accounts_call(
    lens: str, pool: str, users: Sequence[str], tokens: Sequence[str], *, account_data: bool
) -> Call[LensRows]:
    """Return the read of `users` through the lens, as data.

    Parameters
    ----------
    lens
        Where the lens is deployed, or `LENS_ADDRESS` for a state override.
    pool
        Aave V3 pool.
    users
        At most `MAX_USERS` accounts.
    tokens
        aToken and variable debt token of each reserve: tokens 2 id and 2 id + 1 of reserve id, as
        `Pool.getReserveData` numbers it; the zero address where an id is unused.
    account_data
        Whether to ask for the contract's own totals and health factor, which costs most of the gas.
    """
    n, reserves = len(users), _reserve_count(tokens)
    if n > MAX_USERS:
        raise DataError(f"lens: {n} accounts in one call", fix=f"ask for at most {MAX_USERS}")
    return Call(
        lens,
        encode_accounts(pool, users, tokens, account_data=account_data),
        lambda data: decode_accounts(data, n, reserves),
        f"lens of {n} accounts",
    )


# --- the market ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LensReserve:
    """One reserve as the lens read it; None is a read that failed.

    Attributes
    ----------
    configuration
        ReserveConfigurationMap.
    normalized_income_ray, normalized_variable_debt_ray
        Indices at the block's time.
    price_base
        AaveOracle's price in base currency.
    liquidity_raw
        Underlying held by the aToken: what can be borrowed, withdrawn or flash-loaned.
    source
        Address of the price source, as an integer.
    answer
        The source's ``latestAnswer()``.
    updated_at, round_id
        Of the source's ``latestRoundData()``; None for a source that has none.
    """

    configuration: int | None
    normalized_income_ray: int | None
    normalized_variable_debt_ray: int | None
    price_base: int | None
    liquidity_raw: int | None
    source: int | None
    answer: int | None
    updated_at: int | None
    round_id: int | None


@dataclass(frozen=True, slots=True)
class LensMarket:
    """The market as the lens read it.

    Attributes
    ----------
    block, timestamp
        Of the block that the call ran on, as the contract saw them; indices are at `timestamp`.
    reserves
        By reserve id.
    """

    block: int
    timestamp: int
    reserves: tuple[LensReserve, ...]


def market_call(
    lens: str, pool: str, oracle: str, assets: Sequence[str], tokens: Sequence[str]
) -> Call[LensMarket]:
    """Return the read of all reserves, as data; `tokens` as in `accounts_call`, `assets` by reserve id."""
    reserves = _reserve_count(tokens)
    if len(assets) != reserves:
        raise DataError(f"lens: {len(assets)} assets, tokens of {reserves} reserves")
    return Call(
        lens,
        MARKET.encode(pool, oracle, list(assets), list(tokens)),
        lambda data: decode_market(data, reserves),
        f"lens of {reserves} reserves",
    )


def decode_market(data: bytes, reserves: int) -> LensMarket:
    """Turn the answer of ``market`` into the state of `reserves` reserves; raises `DataError`."""
    words = _answer_words(data, "market")
    if len(words) != _MARKET_HEAD + _MARKET_ROW * reserves:
        raise DataError(f"lens: {len(words)} words cannot be a market of {reserves} reserves")
    ints = [word_to_int(word) for word in words]
    rows = [ints[i : i + _MARKET_ROW] for i in range(_MARKET_HEAD, len(ints), _MARKET_ROW)]
    return LensMarket(ints[0], ints[1], tuple(_reserve(row) for row in rows))


def _reserve(row: Sequence[int]) -> LensReserve:
    read = [word if row[0] >> i & 1 else None for i, word in enumerate(row)]
    answer = read[7]
    if answer is not None and answer >= _UINT256_END // 2:
        answer -= _UINT256_END
    return LensReserve(read[1], read[2], read[3], read[4], read[5], read[6], answer, read[8], read[9])


# --- through Multicall3 -------------------------------------------------------------------------------------


def multicall_accounts_call(
    multicall3: str, pool: str, users: Sequence[str], tokens: Sequence[str], *, account_data: bool
) -> Call[LensRows]:
    """Return the same read as `accounts_call` through Multicall3, with the same rows as the answer.

    Every token is asked about every account, since the bitmap is known only afterwards: it costs several
    times the gas, so that fewer accounts fit into a call. Nor does Multicall3 bound the gas of a single read:
    a token that burns all of it takes the whole call along.
    """
    n, reserves = len(users), _reserve_count(tokens)
    reads: list[tuple[str, bytes]] = []
    for user in users:
        argument = _address_words([user])
        reads.append((pool, aave_v3.GET_USER_CONFIGURATION.selector + argument))
        reads.append((pool, aave_v3.GET_USER_EMODE.selector + argument))
        if account_data:
            reads.append((pool, aave_v3.GET_USER_ACCOUNT_DATA.selector + argument))
        balance = aave_v3.SCALED_BALANCE_OF.selector + argument
        reads += [(token, balance) for token in tokens]
    return Call(
        multicall3,
        multicall.encode_aggregate3(reads),
        lambda data: rows_from_results(
            multicall.decode_aggregate3(data), n, reserves, account_data=account_data
        ),
        f"multicall of {n} accounts",
    )


def rows_from_results(
    results: Sequence[bytes | None], users: int, reserves: int, *, account_data: bool
) -> LensRows:
    """Turn single reads, None where one failed, into the rows that the lens would have answered."""
    stride = 2 + account_data + 2 * reserves
    if len(results) != stride * users:
        raise DataError(f"multicall: {len(results)} results, {stride} for each of {users} accounts expected")
    zero = bytes(_WORD)
    known = (1 << 2 * reserves) - 1
    heads: list[bytes] = []
    values: list[bytes] = []
    for at in range(0, len(results), stride):
        config, category = _sized(results[at], _WORD), _sized(results[at + 1], _WORD)
        status = LensStatus.FAILED if config is None or category is None else LensStatus.OK
        totals = zero * 3
        if account_data:
            answer = _sized(results[at + 2], 6 * _WORD)
            if answer is not None:
                totals = answer[: 2 * _WORD] + answer[5 * _WORD :]
            elif status is LensStatus.OK:
                status = LensStatus.NO_ACCOUNT_DATA
        flags = int.from_bytes(config or zero, "big")
        if flags & ~known:
            status = LensStatus.UNLISTED_RESERVE
        for column, balance in enumerate(results[at + stride - 2 * reserves : at + stride]):
            if flags >> (column ^ 1) & 1:
                word = _sized(balance, _WORD)
                if word is None:
                    status = LensStatus.FAILED
                values.append(word or zero)
        heads += [_int_word(status), config or zero, category or zero, totals]
    head = _as_words(b"".join(heads)).reshape(users, HEAD, _LIMBS)
    row_ptr, column_of = _position_pattern(head[:, CONFIGURATION], reserves)
    return LensRows(reserves, head, row_ptr, column_of, _as_words(b"".join(values)))


# --- words --------------------------------------------------------------------------------------------------


def _sized(data: bytes | None, size: int) -> bytes | None:
    """The first `size` bytes of an answer, as the lens takes them; None when there are fewer."""
    return data[:size] if data is not None and len(data) >= size else None


def _reserve_count(tokens: Sequence[str]) -> int:
    if len(tokens) % 2:
        raise DataError(f"lens: {len(tokens)} tokens are not pairs of aToken and variable debt token")
    return len(tokens) // 2


def _int_word(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")


def _address_words(addresses: Sequence[str]) -> bytes:
    """Encode addresses as words, all at once."""
    try:
        raw = bytes.fromhex("".join(a.removeprefix("0x") for a in addresses))
    except ValueError as error:
        raise DataError(f"not an address among {len(addresses)}: {error}") from None
    if len(raw) != 20 * len(addresses) or any(len(a) != 42 for a in addresses):
        raise DataError(f"not 20 bytes each: {[a for a in addresses if len(a) != 42][:3]}")
    words = np.zeros((len(addresses), _WORD), dtype=np.uint8)
    words[:, _WORD - 20 :] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 20)
    return words.tobytes()


def _as_words(data: bytes) -> Words:
    return np.frombuffer(data, dtype=_BIG_ENDIAN).reshape(-1, _LIMBS)


def _answer_words(data: bytes, what: str) -> Words:
    """Strip offset and length of an ABI-encoded ``uint256[]``."""
    if len(data) < 2 * _WORD or len(data) % _WORD:
        raise DataError(f"lens: {len(data)} bytes are not an answer of {what}")
    words = _as_words(data)
    if word_to_int(words[0]) != _WORD or word_to_int(words[1]) != len(words) - 2:
        raise DataError(f"lens: an answer of {what} that is not an array of its own length")
    return words[2:]


def _position_pattern(configuration: Words, reserves: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row_ptr and column of the positions that configuration bitmaps, shape (n, 4), flag.

    Bit 2 id is "borrowed" and column 2 id + 1, bit 2 id + 1 is "used as collateral" and column 2 id.
    """
    raw = np.ascontiguousarray(configuration).view(np.uint8).reshape(len(configuration), _WORD)
    low = raw[:, ::-1][:, : (2 * reserves + 7) // 8]
    bits = np.unpackbits(low, axis=1, bitorder="little")[:, : 2 * reserves]
    by_column = bits.reshape(len(bits), reserves, 2)[:, :, ::-1].reshape(len(bits), 2 * reserves)
    row, column = np.nonzero(by_column)
    row_ptr = np.zeros(len(bits) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=len(bits)), out=row_ptr[1:])
    return row_ptr, column.astype(np.int64)
