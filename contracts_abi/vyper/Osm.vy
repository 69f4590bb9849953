# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title A price that takes effect an hour after it was taken
@notice Answers and moves as Maker's oracle security module does: `poke` takes the source's price for the next
        turn and lets the one taken before take effect, at most once a turn, turns beginning at whole
        multiples of `hop`. A source without a price makes `poke` do nothing, silently. Readers are not
        gated here. For local chains; not for production use.
"""

event LogValue:
    val: bytes32

struct Value:
    val: uint128
    has: bool

decimals: public(constant(uint8)) = 18

owner: public(address)
src: public(address)
hop: public(uint256)
zzz: public(uint256)
stopped: public(bool)
cur: Value
nxt: Value


@deploy
def __init__(_src: address, _hop: uint256, _cur: uint128, _nxt: uint128, _zzz: uint256):
    """
    @param _src Feed of the source's price, 18 decimals
    @param _hop Length of a turn, seconds; 3600 on mainnet
    @param _cur Price that is in effect already, 0 for none
    @param _nxt Price that was taken already, 0 for none
    @param _zzz Beginning of the turn in which it was taken
    """
    assert _hop > 0, "OSM/ts-is-zero"
    self.owner = msg.sender
    self.src = _src
    self.hop = _hop
    self.cur = Value(val=_cur, has=_cur > 0)
    self.nxt = Value(val=_nxt, has=_nxt > 0)
    self.zzz = _zzz


@external
def poke():
    """
    @notice Let the next price take effect and take a new one
    """
    assert not self.stopped, "OSM/is-stopped"
    assert self._passed(), "OSM/not-passed"
    taken: uint128 = 0
    ok: bool = False
    taken, ok = self._look()
    if ok:
        self.cur = self.nxt
        self.nxt = Value(val=taken, has=True)
        self.zzz = self._turn(block.timestamp)
        log LogValue(val=convert(convert(self.cur.val, uint256), bytes32))


@external
def stop():
    self._only_owner()
    self.stopped = True


@external
def start():
    self._only_owner()
    self.stopped = False


@external
def void():
    """
    @notice Forget both prices and stop
    """
    self._only_owner()
    self.cur = empty(Value)
    self.nxt = empty(Value)
    self.stopped = True


@external
def change(_src: address):
    self._only_owner()
    self.src = _src


@external
def step(_seconds: uint16):
    """
    @notice Set the length of a turn
    """
    self._only_owner()
    assert _seconds > 0, "OSM/ts-is-zero"
    self.hop = convert(_seconds, uint256)


@external
@view
def passed() -> bool:
    """
    @notice Whether `poke` may be called
    """
    return self._passed()


@external
@view
def peek() -> (bytes32, bool):
    return convert(convert(self.cur.val, uint256), bytes32), self.cur.has


@external
@view
def peep() -> (bytes32, bool):
    return convert(convert(self.nxt.val, uint256), bytes32), self.nxt.has


@external
@view
def read() -> bytes32:
    """
    @notice The price that is in effect
    """
    assert self.cur.has, "OSM/no-current-value"
    return convert(convert(self.cur.val, uint256), bytes32)


@internal
@view
def _passed() -> bool:
    return block.timestamp >= self.zzz + self.hop


@internal
@view
def _turn(_at: uint256) -> uint256:
    return _at - _at % self.hop


@internal
@view
def _look() -> (uint128, bool):
    """
    @notice The source's price, and whether it has one
    """
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        self.src,
        method_id("latestAnswer()"),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(answer) < 32:
        return 0, False
    price: int256 = extract32(answer, 0, output_type=int256)
    if price <= 0:
        return 0, False
    return convert(price, uint128), True


@internal
@view
def _only_owner():
    assert msg.sender == self.owner, "OSM/not-authorized"
