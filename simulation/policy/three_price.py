"""The default policy: three prices, each asked only what it can answer.

The *protocol view* (what the contract's oracle says) decides what can be liquidated, the *reference view*
(what guarded sources say) decides whether that is right, and the *executable price* (the swap inside the
`LiquidationPlan`) decides whether it pays. None stands in for another.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from oracle.strict import StrictModel
from simulation.fixed_point import BPS, WAD, to_float
from simulation.policy import policies
from simulation.types import Action, LiquidationPlan, MarginReport, MarginStatus, Reason, Verdict

_NO_PLAN = frozenset(
    {
        Reason.UNPROFITABLE,
        Reason.NO_COLLATERAL,
        Reason.NO_ROUTE,
        Reason.SIMULATION_FAILED,
        Reason.PROTOCOL_UNKNOWN,
        Reason.PAUSED,
        Reason.LIMIT,
    }
)


def _beyond(margin: MarginReport, tolerance_bps: int) -> bool:
    """Whether a healthy account is further from liquidation than the tolerance.

    The distance is the health factor's excess over 1. Methods without one are measured by the surplus of
    equity over the maintenance requirement, relative to the debt, which for a lending account is the same
    number. Where neither can be had, any health counts.
    """
    if margin.health_factor_wad is not None:
        return (margin.health_factor_wad - WAD) * BPS > tolerance_bps * WAD
    if margin.equity_base is None or margin.maintenance_base is None or not margin.debt_base:
        return True
    surplus_base = margin.equity_base - margin.maintenance_base
    return surplus_base * BPS > tolerance_bps * margin.debt_base


def _pays(plan: LiquidationPlan) -> bool:
    return plan.net_profit_raw > 0 and plan.profit_raw >= plan.min_profit_raw


def _health(margin: MarginReport) -> str:
    if margin.health_factor_wad is None:
        return margin.status.value
    return f"{margin.status.value} at health factor {to_float(margin.health_factor_wad, 18):.4f}"


@policies.register("three-price")
class ThreePricePolicy(StrictModel):
    """Liquidate what the protocol allows, the reference does not contradict, and the market pays for.

    The whole decision, first match first; "reference" is the same account at the reference prices:

    ============ ============================ ===================== ====== ==========================
    protocol     reference                    plan                  action reason
    ============ ============================ ===================== ====== ==========================
    unknown      liquidatable                 any                   arm    protocol_unknown
    unknown      other                        any                   hold   protocol_unknown
    no debt      has debt (or the reverse)    any                   hold   account_unknown
    no debt      other                        any                   leave  no_debt
    healthy      liquidatable                 any                   arm    protocol_price_stale_high
    healthy      healthy                      any                   leave  healthy
    healthy      unknown, none                any                   leave  reference_unknown
    liquidatable unknown, none                any, setting ``hold`` hold   reference_unknown
    liquidatable healthy beyond tolerance     any                   hold   protocol_price_wrongly_low
    liquidatable other                        none, or does not pay leave  `no_plan`, unprofitable
    liquidatable liquidatable or in tolerance pays, seizes too much hold   protocol_price_wrongly_low
    liquidatable liquidatable or in tolerance pays, seizure unknown as if without a reference
    liquidatable liquidatable or in tolerance pays                  act    liquidate
    liquidatable unknown, none                pays, setting ``act`` act    liquidate
    ============ ============================ ===================== ====== ==========================

    An age is no argument here: a stale feed whose price is right harms nobody, and a fresh one whose price
    is wrong does. Age speaks through the guards, which make a stale reference unknown.

    Attributes
    ----------
    harm_tolerance_bps
        How far the protocol's prices may be below the reference, to the borrower's harm, before we hold.
        It bounds both the health factor that the reference may still show and the excess of collateral
        seized. The default, 100, is two honest feeds of 0.5 % deviation threshold (the setting of Chainlink
        ETH/USD) that err in opposite directions. 0 holds at any contradiction.
    without_reference
        What to do with an account that the protocol would let us liquidate while the reference is unknown.
    """

    kind: ClassVar[Literal["three-price"]] = "three-price"

    harm_tolerance_bps: int = Field(default=100, ge=0, le=10_000)
    without_reference: Literal["hold", "act"] = "hold"

    def decide(
        self,
        protocol_margin: MarginReport,
        reference_margin: MarginReport | None,
        plan: LiquidationPlan | None,
        *,
        excess_seizure_bps: int | None,
        no_plan: Reason = Reason.UNPROFITABLE,
    ) -> Verdict:
        """Return the verdict on one account.

        Parameters
        ----------
        protocol_margin, reference_margin
            The same positions at the protocol's and at the reference prices; the latter None when the
            account has no reference at all.
        plan
            The most profitable liquidation, or None when there is none.
        excess_seizure_bps
            What the plan seizes beyond what the reference prices justify, from
            `simulation.policy.excess_seizure_bps`; None when unknown, which is not the same as 0.
        no_plan
            Why `plan` is None.

        Raises
        ------
        ValueError
            If the arguments do not concern one account, or `no_plan` is no reason for having no plan.
        """
        _check(protocol_margin, reference_margin, plan, no_plan)
        protocol = protocol_margin.status
        reference = MarginStatus.UNKNOWN if reference_margin is None else reference_margin.status

        def verdict(action: Action, reason: Reason, detail: str) -> Verdict:
            return Verdict(protocol_margin.account, action, reason, protocol_margin, reference_margin, detail)

        if protocol is MarginStatus.UNKNOWN:
            why = protocol_margin.reason or "its margin could not be computed"
            armed = reference is MarginStatus.LIQUIDATABLE
            return verdict(
                Action.ARM if armed else Action.HOLD,
                Reason.PROTOCOL_UNKNOWN,
                f"unknown at the protocol's prices: {why}"
                + ("; liquidatable at the reference prices" if armed else ""),
            )
        if reference is not MarginStatus.UNKNOWN and (
            (protocol is MarginStatus.NO_DEBT) != (reference is MarginStatus.NO_DEBT)
        ):
            return verdict(
                Action.HOLD,
                Reason.ACCOUNT_UNKNOWN,
                f"positions disagree: {protocol.value} in one view, {reference.value} in the other",
            )
        if protocol is MarginStatus.NO_DEBT:
            return verdict(Action.LEAVE, Reason.NO_DEBT, "no debt")
        views = f"protocol {_health(protocol_margin)}, reference " + (
            "none" if reference_margin is None else _health(reference_margin)
        )
        if protocol is MarginStatus.HEALTHY:
            if reference is MarginStatus.LIQUIDATABLE:
                return verdict(Action.ARM, Reason.PROTOCOL_PRICE_STALE_HIGH, views)
            if reference is MarginStatus.HEALTHY:
                return verdict(Action.LEAVE, Reason.HEALTHY, views)
            return verdict(Action.LEAVE, Reason.REFERENCE_UNKNOWN, views)

        blind = reference is MarginStatus.UNKNOWN
        if blind and self.without_reference == "hold":
            return verdict(Action.HOLD, Reason.REFERENCE_UNKNOWN, views)
        tolerance = f"tolerance {self.harm_tolerance_bps} bps"
        if (
            reference_margin is not None
            and reference is MarginStatus.HEALTHY
            and _beyond(reference_margin, self.harm_tolerance_bps)
        ):
            return verdict(Action.HOLD, Reason.PROTOCOL_PRICE_LOW, f"{views}, {tolerance}")
        if plan is None:
            return verdict(Action.LEAVE, no_plan, f"{views}; no plan: {no_plan.value}")
        if not _pays(plan):
            return verdict(
                Action.LEAVE,
                Reason.UNPROFITABLE,
                f"{views}; net profit {plan.net_profit_raw} raw, before gas {plan.profit_raw}, "
                f"least {plan.min_profit_raw}",
            )
        if not blind and excess_seizure_bps is None and self.without_reference == "hold":
            return verdict(
                Action.HOLD,
                Reason.REFERENCE_UNKNOWN,
                f"{views}; seizure cannot be held against the reference",
            )
        if not blind and excess_seizure_bps is not None and excess_seizure_bps > self.harm_tolerance_bps:
            return verdict(
                Action.HOLD,
                Reason.PROTOCOL_PRICE_LOW,
                f"{views}; seizes {excess_seizure_bps} bps more than at reference prices, {tolerance}",
            )
        return verdict(Action.ACT, Reason.LIQUIDATE, f"{views}; net profit {plan.net_profit_raw} raw")


def _check(
    protocol_margin: MarginReport,
    reference_margin: MarginReport | None,
    plan: LiquidationPlan | None,
    no_plan: Reason,
) -> None:
    if reference_margin is not None and (
        (protocol_margin.account, protocol_margin.protocol, protocol_margin.block)
        != (reference_margin.account, reference_margin.protocol, reference_margin.block)
    ):
        raise ValueError(
            f"margins of different accounts or blocks: {protocol_margin.account} at {protocol_margin.block}, "
            f"{reference_margin.account} at {reference_margin.block}"
        )
    if plan is not None and (plan.account, plan.protocol) != (
        protocol_margin.account,
        protocol_margin.protocol,
    ):
        raise ValueError(f"plan for {plan.account}, margin of {protocol_margin.account}")
    if no_plan not in _NO_PLAN:
        raise ValueError(f"{no_plan.value!r} is no reason for having no plan")
