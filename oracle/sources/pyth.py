"""Pyth: the price that a contract stores, and the one that Hermes offers for the next update.

Contract: ``IPyth.getPriceUnsafe`` and ``getEmaPriceUnsafe`` of @pythnetwork/pyth-sdk-solidity 4.2.0
(``AbstractPyth.sol``, ``MockPyth.sol``); a price is ``price * 10**expo``, and so is its confidence. Hermes:
``/v2/updates/price/latest`` of pyth-crosschain 7c915eb1 (``apps/hermes/server/src/api/types.rs``).

Traps: whoever acts chooses which signed price of the last minutes the contract stores, so that its age alone
proves little (``parsePriceFeedUpdatesUnique`` takes the choice away). ``getPriceNoOlderThan`` measures the
distance to now in both directions; a price from the future passes it. What Hermes says under ``parsed`` is
signed by nobody: the contract checks the ``binary`` part, and nothing here does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from contracts_abi.bounded_json import bounded_json
from contracts_abi.calls import Call, function
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import ContractSource, outputs
from oracle.sources.pulled import FeedId, PulledSource, handed_in, id_bytes
from oracle.types import FeedKind, NoData, PriceObs, Reading

GET_PRICE = function("getPriceUnsafe(bytes32)(int64,uint64,int32,uint256)")
GET_EMA_PRICE = function("getEmaPriceUnsafe(bytes32)(int64,uint64,int32,uint256)")

MAX_EXPONENT = 255
"""Furthest from zero that an exponent makes sense; ``PythUtils.convertToUint`` goes no lower than -255."""

_BASE_URL = re.compile(r"https?://[^/@\s]+(/[^@\s]*)?")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class PythPrice:
    """A price as Pyth states it.

    Attributes
    ----------
    price, conf
        The price and the half-width of its confidence interval, both times ``10**expo``.
    expo
        The exponent of both.
    publish_time
        Unix seconds.
    """

    price: int
    conf: int
    expo: int
    publish_time: int


def exact(price: int, conf: int, expo: int) -> tuple[int, int, int] | None:
    """Return price and confidence as integers with their decimals; None when the exponent is beyond sense.

    A negative exponent is the number of decimals; a positive one is multiplied out, which is exact too.
    """
    if abs(expo) > MAX_EXPONENT:
        return None
    if expo <= 0:
        return price, conf, -expo
    scale = int(10**expo)
    return price * scale, conf * scale, 0


def recent(publish_time: int, now: int, max_age_s: int) -> bool:
    """Return whether ``getPriceNoOlderThan`` takes a price: no further from now than that, either way."""
    return abs(now - publish_time) <= max_age_s


def reading_of(
    price: PythPrice,
    *,
    base: str,
    quote: str,
    source_id: str,
    observed_at: int,
    block: int | None = None,
    raw: bytes = b"",
) -> Reading:
    """Return a price as a reading; the price may be zero or negative, guards judge that."""
    if price.publish_time <= 0:
        return NoData(base, quote, source_id, observed_at, "the price was never published", block, raw)
    scaled = exact(price.price, price.conf, price.expo)
    if scaled is None:
        reason = f"the exponent {price.expo} is beyond {MAX_EXPONENT}"
        return NoData(base, quote, source_id, observed_at, reason, block, raw)
    mantissa, conf, decimals = scaled
    return PriceObs(
        base,
        quote,
        mantissa,
        decimals,
        FeedKind.PULL,
        source_id,
        published_at=price.publish_time,
        observed_at=observed_at,
        block=block,
        conf_abs=conf,
        raw=raw,
    )


@sources.register("pyth")
class PythSource(ContractSource):
    """The price of one feed that Pyth's contract stores, however old it is.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        Pyth's contract on the chain.
    name
        Source id; ``pyth:<address>:<feed id>`` by default.
    feed_id
        Pyth's id of the price feed.
    average
        Whether to read the exponential moving average instead of the price.
    heartbeat_s
        Age at which the consumer refuses the price.
    grace_s
        Allowance on top of it.
    """

    kind: ClassVar[Literal["pyth"]] = "pyth"

    feed_id: FeedId
    average: bool = False
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=0, ge=0)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"{self.kind}:{self.address}:{_key(self.feed_id, self.average)}"

    def reads(self) -> list[Call[Any]]:
        """Return the read of the price that is stored."""
        return [self._getter().call(self.address, id_bytes(self.feed_id))]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price at its own exponent, with its confidence."""
        raw = results[0] if results else None
        values = outputs(self._getter(), raw)
        if values is None:
            return self._no_data(f"{self._getter().name}() gave no price", raw, block, timestamp)
        return reading_of(
            PythPrice(*values),
            base=self.base,
            quote=self.quote,
            source_id=self.source_id,
            observed_at=timestamp,
            block=block,
            raw=raw or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises."""
        return FeedContext(now=timestamp, heartbeat_s=self.heartbeat_s, grace_s=self.grace_s)

    def _getter(self) -> Any:
        return GET_EMA_PRICE if self.average else GET_PRICE


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to ask a price service for; somebody else does.

    Attributes
    ----------
    url
        With its query.
    headers
        Never shown: one of them may hold a key.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def hermes_request(base_url: str, feed_ids: Iterable[str], api_key: SecretStr | None = None) -> HttpRequest:
    """Return the request for the latest prices of some feeds, with the key where there is one."""
    query = urlencode([("ids[]", feed_id) for feed_id in feed_ids] + [("parsed", "true")])
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key.get_secret_value()}"}
    return HttpRequest(f"{base_url.rstrip('/')}/v2/updates/price/latest?{query}", headers)


def hermes_readings(
    document: bytes | str,
    wanted: Iterable[HermesSource],
    *,
    observed_at: int,
    block: int | None = None,
) -> tuple[Reading, ...]:
    """Return what Hermes says of each feed that is wanted, in their order.

    Parameters
    ----------
    document
        The answer of ``/v2/updates/price/latest``; one answer covers all feeds that were asked for.
    wanted
        The feeds. One that is missing, stated twice or malformed has no data; the others are not harmed.
    observed_at, block
        When it was asked for.
    """
    stated = _parsed(document)
    readings: list[Reading] = []
    for source in wanted:
        entry: PythPrice | str = stated if isinstance(stated, str) else _one(stated, source)
        readings.append(
            NoData(source.base, source.quote, source.source_id, observed_at, entry, block)
            if isinstance(entry, str)
            else reading_of(
                entry,
                base=source.base,
                quote=source.quote,
                source_id=source.source_id,
                observed_at=observed_at,
                block=block,
            )
        )
    return tuple(readings)


def _parsed(document: bytes | str) -> list[Any] | str:
    """Return the list under ``parsed``, or why there is none."""
    try:
        root = bounded_json(document, _MAX_DEPTH)
    except ValueError:
        return "the answer of Hermes is not JSON"
    found = root.get("parsed") if isinstance(root, dict) else None
    return found if isinstance(found, list) else "the answer of Hermes has no parsed prices"


def _one(entries: Sequence[Any], source: HermesSource) -> PythPrice | str:
    """Return the price of one feed, or why there is none."""
    of_feed = [e for e in entries if isinstance(e, dict) and _same_id(e.get("id"), source.feed_id)]
    if len(of_feed) != 1:
        return f"Hermes states {source.feed_id} {len(of_feed)} times"
    part = "ema_price" if source.average else "price"
    found = _price(of_feed[0].get(part))
    return f"Hermes states no sound {part} of {source.feed_id}" if found is None else found


def _same_id(stated: Any, feed_id: str) -> bool:
    return isinstance(stated, str) and stated.lower().removeprefix("0x") == feed_id[2:]


def _price(stated: Any) -> PythPrice | None:
    """Return a price of Hermes if every part of it has the type and the range that the contract's has."""
    if not isinstance(stated, dict):
        return None
    price, conf = _integer(stated.get("price"), 64, signed=True), _integer(stated.get("conf"), 64)
    expo, at = stated.get("expo"), stated.get("publish_time")
    # A JSON true is an int to Python.
    if price is None or conf is None or type(expo) is not int or type(at) is not int:
        return None
    if not (-(2**31) <= expo < 2**31 and 0 <= at < 2**63):
        return None
    return PythPrice(price, conf, expo, at)


def _integer(text: Any, bits: int, *, signed: bool = False) -> int | None:
    """Return an integer that JSON carries as text, to lose no digit."""
    if not isinstance(text, str) or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return value if low <= value < high else None


def _key(feed_id: str, average: bool) -> str:
    return f"{feed_id}:ema" if average else feed_id


@sources.register("pyth_hermes")
class HermesSource(PulledSource):
    """The latest price of one feed that Hermes offers, as its JSON answer states it, unsigned.

    Attributes
    ----------
    base, quote, name, heartbeat_s, grace_s
        As of every source that is handed what was fetched; by default named after the feed id.
    feed_id
        Pyth's id of the price feed.
    average
        Whether to take the exponential moving average instead of the price.
    api_key
        Sent as bearer token, by https only; shown nowhere.
    base_url
        Where Hermes is, without ``/v2``; who runs it for you says so.
    """

    kind: ClassVar[Literal["pyth_hermes"]] = "pyth_hermes"

    feed_id: FeedId
    average: bool = False
    # Before `base_url`, whose check looks at it.
    api_key: SecretStr | None = None
    base_url: str | None = None

    # An error of pydantic would quote the key with the rest of what was given.
    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("base_url")
    @classmethod
    def _keeps_the_key_private(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not _BASE_URL.fullmatch(value):
            raise ValueError("must begin with https:// or http:// and hold no user name")
        if info.data.get("api_key") is not None and not value.startswith("https://"):
            raise ValueError("a key is sent by https:// only")
        return value

    def _key(self) -> str:
        return _key(self.feed_id, self.average)

    def request(self) -> HttpRequest | None:
        """Return what to ask for; None without `base_url`."""
        return None if self.base_url is None else hermes_request(self.base_url, (self.feed_id,), self.api_key)

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price of the answer that was fetched: the only result."""
        document = handed_in(results)
        if document is None:
            return self._no_data("no answer of Hermes was fetched", None, block, timestamp)
        (reading,) = hermes_readings(document, (self,), observed_at=timestamp, block=block)
        return reading
