# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Liquidates on Aave V3 and Morpho Blue, with other people's money or from inventory, for one owner
@notice What it promises, and the transaction reverts where it cannot keep it:
        - only the owner can start a liquidation, and an intent id runs at most once, ever, on whichever venue;
        - a flash liquidation leaves at least the minimum profit, in the debt token, and all of it goes to the
          receiver that was fixed at construction; from inventory, at least the minimum collateral does;
        - tokens that lay here before are not spent on a flash liquidation; no token and no allowance is left
          behind that was not here before;
        - a callback answers the pool or the Morpho that was fixed at construction only, only once, and only
          while a loan or a liquidation that this contract asked it for is under way;
        - the owner's key moves tokens to the receiver, and back to the owner what came from it: nowhere else.
          Anybody can open a market on Morpho, and be borrower, lender and oracle in it: there, tokens that lay
          here are not spent from inventory either, but only what the owner itself allows.
        Debt and collateral are measured by balances and allowances, not by what anybody reports.
@dev Collateral is always taken as the underlying token. Tokens that return nothing from approve or transfer
     are served; tokens that take a fee on transfer are not: Aave cannot list them, and a Morpho market of one
     is liquidated at the owner's risk of a revert.
"""

interface ERC20:
    def balanceOf(account: address) -> uint256: view
    def allowance(owner: address, spender: address) -> uint256: view
    def approve(spender: address, amount: uint256) -> bool: nonpayable
    def transfer(to: address, amount: uint256) -> bool: nonpayable
    def transferFrom(sender: address, to: address, amount: uint256) -> bool: nonpayable

interface Pool:
    def flashLoanSimple(
        receiver: address, asset: address, amount: uint256, params: Bytes[PARAMS_SIZE], referral: uint16
    ): nonpayable
    def liquidationCall(
        collateral: address, debt: address, user: address, debt_to_cover: uint256, receive_a_token: bool
    ): nonpayable

# A market of Morpho Blue is these five words, and its id their Keccak-256.
struct MarketParams:
    loan_token: address
    collateral_token: address
    oracle: address
    irm: address
    lltv: uint256

struct Position:
    supply_shares: uint256
    borrow_shares: uint128
    collateral: uint128

struct Totals:
    supply_assets: uint128
    supply_shares: uint128
    borrow_assets: uint128
    borrow_shares: uint128
    last_update: uint128
    fee: uint128

interface Oracle:
    def price() -> uint256: view

interface Morpho:
    def position(id: bytes32, user: address) -> Position: view
    def market(id: bytes32) -> Totals: view
    def accrueInterest(market: MarketParams): nonpayable
    def liquidate(
        market: MarketParams,
        borrower: address,
        seized_assets: uint256,
        repaid_shares: uint256,
        data: Bytes[DATA_SIZE],
    ) -> (uint256, uint256): nonpayable

struct ExactInputParams:
    path: Bytes[PATH_SIZE]
    recipient: address
    deadline: uint256
    amountIn: uint256
    amountOutMinimum: uint256

interface SwapRouter:
    def exactInput(params: ExactInputParams) -> uint256: payable

# The venue is the contract that liquidated; the market is Morpho's id of it, and nothing for an Aave pool, which
# is one market.
event Liquidated:
    intent_id: indexed(bytes32)
    user: indexed(address)
    venue: indexed(address)
    market: bytes32
    collateral: address
    debt: address
    debt_covered: uint256
    collateral_seized: uint256
    profit: uint256

# Four pools: a token takes 20 bytes of a path, a fee 3.
PATH_SIZE: constant(uint256) = 20 + 4 * 23
PARAMS_SIZE: constant(uint256) = 5 * 32 + 128
DATA_SIZE: constant(uint256) = 6 * 32 + 128

# Counts changes by which a keeper written for one contract would be wrong about another.
VERSION: public(constant(uint256)) = 2

# Morpho's own constants: what a share and a unit of debt begin with, the scale of its prices and its incentive.
VIRTUAL_SHARES: constant(uint256) = 10**6
VIRTUAL_ASSETS: constant(uint256) = 1
WAD: constant(uint256) = 10**18
PRICE_SCALE: constant(uint256) = 10**36
CURSOR: constant(uint256) = 3 * 10**17
MAX_INCENTIVE: constant(uint256) = 115 * 10**16

OWNER: public(immutable(address))
RECEIVER: public(immutable(address))
POOL: public(immutable(address))
MORPHO: public(immutable(address))
ROUTER: public(immutable(address))

# Block in which an intent was executed, 0 if it never was.
executed_at: public(HashMap[bytes32, uint256])

# A flash loan, or a liquidation on Morpho, that was asked for and has not called back yet.
loan_pending: transient(bool)
sale_pending: transient(bool)
debt_covered: transient(uint256)
collateral_seized: transient(uint256)


@deploy
def __init__(owner: address, receiver: address, pool: address, morpho: address, router: address):
    """
    @param owner Who may liquidate, and whose allowance pays from inventory
    @param receiver Where profit and collateral go
    @param pool Aave V3 pool: lends, liquidates, and may call `executeOperation`; zero for none
    @param morpho Morpho Blue: liquidates, and may call `onMorphoLiquidate`; zero for none
    @param router Uniswap V3 SwapRouter
    """
    assert owner != empty(address) and receiver != empty(address), "zero address"
    assert receiver != self, "receiver is the contract itself"
    assert pool != empty(address) or morpho != empty(address), "neither a pool nor a Morpho"
    assert pool != morpho, "pool and Morpho are one contract"
    assert pool == empty(address) or pool.is_contract, "no code at pool"
    assert morpho == empty(address) or morpho.is_contract, "no code at Morpho"
    assert router.is_contract, "no code at router"
    OWNER = owner
    RECEIVER = receiver
    POOL = pool
    MORPHO = morpho
    ROUTER = router


@external
@nonreentrant
def liquidate_flash(
    intent_id: bytes32,
    collateral: address,
    debt: address,
    user: address,
    debt_to_cover: uint256,
    path: Bytes[PATH_SIZE],
    min_profit: uint256,
    deadline_block: uint256,
) -> uint256:
    """
    @notice Borrow the debt, repay it for `user`, sell the collateral, return the loan, keep the rest
    @param intent_id Names the liquidation; a second one with the same name is refused
    @param collateral Token to seize
    @param debt Token to repay
    @param user Whom to liquidate
    @param debt_to_cover Debt to repay and to borrow, in debt token units; the pool may take less of it
    @param path Uniswap V3 path from collateral to debt; empty exactly when they are the same token
    @param min_profit Least profit after the loan's premium, in debt token units
    @param deadline_block Last block in which it may run
    @return Profit in debt token units
    """
    self._claim(intent_id, deadline_block)
    assert POOL != empty(address), "no pool"
    assert (len(path) == 0) == (collateral == debt), "path does not fit the tokens"
    debt_before: uint256 = staticcall ERC20(debt).balanceOf(self)
    collateral_before: uint256 = staticcall ERC20(collateral).balanceOf(self)

    self.loan_pending = True
    extcall Pool(POOL).flashLoanSimple(
        self, debt, debt_to_cover, abi_encode(collateral, user, min_profit, path), 0
    )
    assert not self.loan_pending, "pool did not call back"
    self._approve(debt, POOL, 0)

    profit: uint256 = self._take_profit(collateral, debt, collateral_before, debt_before, min_profit)
    log Liquidated(
        intent_id=intent_id,
        user=user,
        venue=POOL,
        market=empty(bytes32),
        collateral=collateral,
        debt=debt,
        debt_covered=self.debt_covered,
        collateral_seized=self.collateral_seized,
        profit=profit,
    )
    return profit


@external
@nonreentrant
def liquidate_inventory(
    intent_id: bytes32,
    collateral: address,
    debt: address,
    user: address,
    debt_to_cover: uint256,
    min_collateral: uint256,
    deadline_block: uint256,
) -> uint256:
    """
    @notice Repay debt of `user` from this contract's balance, then the owner's allowance; keep the collateral
    @dev What was taken from the owner and not needed goes back. The event's profit is 0: nothing was sold.
    @param min_collateral Least collateral to receive, in collateral token units
    @return Collateral received; the other parameters are as for `liquidate_flash`
    """
    self._claim(intent_id, deadline_block)
    assert POOL != empty(address), "no pool"
    taken: uint256 = self._take_funds(debt, debt_to_cover)
    covered: uint256 = 0
    seized: uint256 = 0
    covered, seized = self._liquidate(collateral, debt, user, debt_to_cover)
    assert seized >= min_collateral, "collateral below the minimum"
    self._send(collateral, RECEIVER, seized)
    self._send(debt, OWNER, min(taken, debt_to_cover - covered))
    log Liquidated(
        intent_id=intent_id,
        user=user,
        venue=POOL,
        market=empty(bytes32),
        collateral=collateral,
        debt=debt,
        debt_covered=covered,
        collateral_seized=seized,
        profit=0,
    )
    return seized


@external
@nonreentrant
def liquidate_morpho_flash(
    intent_id: bytes32,
    market: MarketParams,
    user: address,
    seized: uint256,
    whole_debt: bool,
    path: Bytes[PATH_SIZE],
    min_profit: uint256,
    deadline_block: uint256,
) -> uint256:
    """
    @notice Take the collateral of `user`, sell it before paying, repay the debt from that, keep the rest
    @dev Morpho sends the collateral first and asks for the debt after its callback: nothing is borrowed.
    @param market The market of Morpho, its five words
    @param seized The most collateral to take; what is to be repaid for it follows. Less where the user has less
           of it, or owes less than that.
    @param whole_debt Take as much as Morpho lets be taken, whatever `seized` says: what the whole debt stands for,
           by its shares, so that no dust is left; or all of the collateral, by which the rest becomes bad
    @param path Uniswap V3 path from collateral to loan token; empty exactly when they are the same token
    @param min_profit Least profit, in loan token units
    @return Profit in loan token units; the other parameters are as for `liquidate_flash`
    """
    self._claim(intent_id, deadline_block)
    assert MORPHO != empty(address), "no Morpho"
    collateral: address = market.collateral_token
    debt: address = market.loan_token
    assert (len(path) == 0) == (collateral == debt), "path does not fit the tokens"
    id: bytes32 = keccak256(abi_encode(market))
    seized_assets: uint256 = 0
    repaid_shares: uint256 = 0
    seized_assets, repaid_shares = self._request(market, id, user, seized, whole_debt, max_value(uint256))
    debt_before: uint256 = staticcall ERC20(debt).balanceOf(self)
    collateral_before: uint256 = staticcall ERC20(collateral).balanceOf(self)

    self.sale_pending = True
    extcall Morpho(MORPHO).liquidate(
        market,
        user,
        seized_assets,
        repaid_shares,
        abi_encode(collateral, debt, collateral_before, min_profit, path),
    )
    assert not self.sale_pending, "Morpho did not call back"
    covered: uint256 = self.debt_covered - staticcall ERC20(debt).allowance(self, MORPHO)
    self._approve(debt, MORPHO, 0)

    profit: uint256 = self._take_profit(collateral, debt, collateral_before, debt_before, min_profit)
    log Liquidated(
        intent_id=intent_id,
        user=user,
        venue=MORPHO,
        market=id,
        collateral=collateral,
        debt=debt,
        debt_covered=covered,
        collateral_seized=self.collateral_seized,
        profit=profit,
    )
    return profit


@external
@nonreentrant
def liquidate_morpho_inventory(
    intent_id: bytes32,
    market: MarketParams,
    user: address,
    seized: uint256,
    whole_debt: bool,
    max_repaid: uint256,
    min_collateral: uint256,
    deadline_block: uint256,
) -> uint256:
    """
    @notice Repay debt of `user` from the owner's allowance; keep the collateral
    @param max_repaid The most that may be repaid, in loan token units, and no more than the owner has and allows:
           taken from the owner, and what is not needed goes back. Where it is less than what is asked for stands
           for, so much less is taken.
    @return Collateral received; the other parameters are as for `liquidate_morpho_flash` and
            `liquidate_inventory`
    """
    self._claim(intent_id, deadline_block)
    assert MORPHO != empty(address), "no Morpho"
    collateral: address = market.collateral_token
    debt: address = market.loan_token
    id: bytes32 = keccak256(abi_encode(market))
    seized_assets: uint256 = 0
    repaid_shares: uint256 = 0
    funds: uint256 = min(max_repaid, staticcall ERC20(debt).balanceOf(OWNER))
    funds = min(funds, staticcall ERC20(debt).allowance(OWNER, self))
    seized_assets, repaid_shares = self._request(market, id, user, seized, whole_debt, funds)
    debt_before: uint256 = staticcall ERC20(debt).balanceOf(self)
    collateral_before: uint256 = staticcall ERC20(collateral).balanceOf(self)

    self._take(debt, funds)
    self._approve(debt, MORPHO, funds)
    extcall Morpho(MORPHO).liquidate(market, user, seized_assets, repaid_shares, b"")
    covered: uint256 = funds - staticcall ERC20(debt).allowance(self, MORPHO)
    self._approve(debt, MORPHO, 0)
    left: uint256 = funds - covered
    received: uint256 = staticcall ERC20(collateral).balanceOf(self) - collateral_before
    if collateral == debt:
        received -= left

    assert received >= min_collateral, "collateral below the minimum"
    self._send(collateral, RECEIVER, received)
    self._send(debt, OWNER, left)
    assert staticcall ERC20(debt).balanceOf(self) >= debt_before, "own tokens spent"
    log Liquidated(
        intent_id=intent_id,
        user=user,
        venue=MORPHO,
        market=id,
        collateral=collateral,
        debt=debt,
        debt_covered=covered,
        collateral_seized=received,
        profit=0,
    )
    return received


@external
def onMorphoLiquidate(repaid_assets: uint256, data: Bytes[DATA_SIZE]):
    """
    @notice Called by Morpho in the middle of `liquidate_morpho_flash`, with the collateral already here
    """
    assert msg.sender == MORPHO and self.sale_pending, "unexpected callback"
    self.sale_pending = False
    collateral: address = empty(address)
    debt: address = empty(address)
    collateral_before: uint256 = 0
    min_profit: uint256 = 0
    path: Bytes[PATH_SIZE] = b""
    collateral, debt, collateral_before, min_profit, path = abi_decode(
        data, (address, address, uint256, uint256, Bytes[PATH_SIZE])
    )

    seized: uint256 = staticcall ERC20(collateral).balanceOf(self) - collateral_before
    self.collateral_seized = seized
    self.debt_covered = repaid_assets
    if collateral != debt:
        self._sell(collateral, seized, path, repaid_assets + min_profit)
    self._approve(debt, MORPHO, repaid_assets)


@external
def executeOperation(
    asset: address, amount: uint256, premium: uint256, initiator: address, params: Bytes[PARAMS_SIZE]
) -> bool:
    """
    @notice Called by the pool in the middle of `liquidate_flash`, with the loan already here
    """
    assert msg.sender == POOL and initiator == self and self.loan_pending, "unexpected callback"
    self.loan_pending = False
    collateral: address = empty(address)
    user: address = empty(address)
    min_profit: uint256 = 0
    path: Bytes[PATH_SIZE] = b""
    collateral, user, min_profit, path = abi_decode(params, (address, address, uint256, Bytes[PATH_SIZE]))

    own: uint256 = staticcall ERC20(asset).balanceOf(self) - amount
    covered: uint256 = 0
    seized: uint256 = 0
    covered, seized = self._liquidate(collateral, asset, user, amount)
    self.debt_covered = covered
    self.collateral_seized = seized

    owed: uint256 = amount + premium
    if collateral != asset:
        left: uint256 = staticcall ERC20(asset).balanceOf(self) - own
        self._sell(collateral, seized, path, owed + min_profit - min(left, owed + min_profit))
    self._approve(asset, POOL, owed)
    return True


@external
@nonreentrant
def sweep(token: address) -> uint256:
    """
    @notice Send this contract's whole balance of `token` to the receiver
    """
    assert msg.sender == OWNER, "owner only"
    amount: uint256 = staticcall ERC20(token).balanceOf(self)
    self._send(token, RECEIVER, amount)
    return amount


@internal
def _claim(intent_id: bytes32, deadline_block: uint256):
    assert msg.sender == OWNER, "owner only"
    assert block.number <= deadline_block, "deadline passed"
    assert self.executed_at[intent_id] == 0, "intent already executed"
    self.executed_at[intent_id] = block.number


@internal
def _request(
    market: MarketParams, id: bytes32, user: address, seized: uint256, whole_debt: bool, funds: uint256
) -> (uint256, uint256):
    """
    @notice What Morpho is asked for, as of now and by its own arithmetic: the lesser of what was planned and what
            there is. Interest, a price that moved, and a repayment of a unit by anybody else, on purpose or not,
            do not make the request one for more than that, which Morpho would panic at.
    @dev By collateral where the debt, and `funds`, stand for as much of it; else by the shares that there are. Both
         fail only where the two are within two units of the loan token of each other: Morpho rounds every step
         against whoever asks.
    @return Collateral to take and shares to repay, one of them 0
    """
    extcall Morpho(MORPHO).accrueInterest(market)
    position: Position = staticcall Morpho(MORPHO).position(id, user)
    totals: Totals = staticcall Morpho(MORPHO).market(id)
    all_assets: uint256 = convert(totals.borrow_assets, uint256) + VIRTUAL_ASSETS
    all_shares: uint256 = convert(totals.borrow_shares, uint256) + VIRTUAL_SHARES
    shares: uint256 = convert(position.borrow_shares, uint256)
    # More than a debt can be, and the product would not fit.
    if funds <= convert(max_value(uint128), uint256):
        shares = min(shares, funds * all_shares // all_assets)

    wanted: uint256 = convert(position.collateral, uint256)
    if not whole_debt:
        wanted = min(seized, wanted)
    discount: uint256 = CURSOR * (WAD - market.lltv) // WAD
    incentive: uint256 = min(MAX_INCENTIVE, WAD * WAD // (WAD - discount))
    worth: uint256 = self._div_up(wanted * staticcall Oracle(market.oracle).price(), PRICE_SCALE)
    repaid: uint256 = self._div_up(worth * WAD, incentive)
    if self._div_up(repaid * all_shares, all_assets) <= shares:
        return wanted, 0
    return 0, shares


@internal
@pure
def _div_up(numerator: uint256, denominator: uint256) -> uint256:
    return (numerator + denominator - 1) // denominator


@internal
def _take_funds(debt: address, amount: uint256) -> uint256:
    """
    @return What had to be taken from the owner, so that `amount` is here
    """
    held: uint256 = staticcall ERC20(debt).balanceOf(self)
    if held >= amount:
        return 0
    self._take(debt, amount - held)
    return amount - held


@internal
def _take(token: address, amount: uint256):
    assert extcall ERC20(token).transferFrom(OWNER, self, amount, default_return_value=True), "transferFrom"


@internal
def _take_profit(
    collateral: address, debt: address, collateral_before: uint256, debt_before: uint256, min_profit: uint256
) -> uint256:
    """
    @notice Send the receiver what both balances have grown by
    @return The profit, by which the debt token's has
    """
    debt_after: uint256 = staticcall ERC20(debt).balanceOf(self)
    assert debt_after >= debt_before + min_profit, "profit below the minimum"
    profit: uint256 = debt_after - debt_before
    self._send(debt, RECEIVER, profit)
    if collateral != debt:
        self._send(collateral, RECEIVER, staticcall ERC20(collateral).balanceOf(self) - collateral_before)
    return profit


@internal
def _liquidate(
    collateral: address, debt: address, user: address, debt_to_cover: uint256
) -> (uint256, uint256):
    """
    @return Debt repaid and collateral received
    """
    before: uint256 = staticcall ERC20(collateral).balanceOf(self)
    self._approve(debt, POOL, debt_to_cover)
    extcall Pool(POOL).liquidationCall(collateral, debt, user, debt_to_cover, False)
    covered: uint256 = debt_to_cover - staticcall ERC20(debt).allowance(self, POOL)
    self._approve(debt, POOL, 0)
    received: uint256 = staticcall ERC20(collateral).balanceOf(self)
    if collateral == debt:
        # One balance received the collateral and paid the debt.
        received += covered
    return covered, received - before


@internal
def _sell(token: address, amount: uint256, path: Bytes[PATH_SIZE], least: uint256):
    self._approve(token, ROUTER, amount)
    extcall SwapRouter(ROUTER).exactInput(
        ExactInputParams(
            path=path,
            recipient=self,
            deadline=block.timestamp,
            amountIn=amount,
            amountOutMinimum=least,
        )
    )
    self._approve(token, ROUTER, 0)


@internal
def _approve(token: address, spender: address, amount: uint256):
    # Some tokens refuse to change one allowance into another: over zero.
    if staticcall ERC20(token).allowance(self, spender) != 0:
        assert extcall ERC20(token).approve(spender, 0, default_return_value=True), "approve"
    if amount != 0:
        assert extcall ERC20(token).approve(spender, amount, default_return_value=True), "approve"


@internal
def _send(token: address, to: address, amount: uint256):
    if amount != 0:
        assert extcall ERC20(token).transfer(to, amount, default_return_value=True), "transfer"
