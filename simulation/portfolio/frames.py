"""Portfolios and results as pandas frames, in and out."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from simulation.margin.result import MarginResult
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.load import COLUMNS, cell_table, portfolios_of, rows_of


def frame_of(portfolios: Iterable[Portfolio]) -> pd.DataFrame:
    """Return portfolios as a frame with the columns of a position file, cash as a row of its own.

    Parameters
    ----------
    portfolios
        In order; `portfolios_from` gives them back.
    """
    return pd.DataFrame(list(rows_of(portfolios)), columns=list(COLUMNS), dtype=object)


def portfolios_from(frame: pd.DataFrame, where: str = "frame") -> tuple[Portfolio, ...]:
    """Return the portfolios of a frame of positions, accounts in order of first use.

    Parameters
    ----------
    frame
        Columns as in docs/margin-book.md; missing values are empty cells, the index is not looked at.
    where
        What messages call the frame.

    Raises
    ------
    BadCells
        If cells cannot be read; rows are counted from 1.
    InputError
        If columns are missing, unknown or stand twice, or there is no row.
    """
    # A missing value of an extension type is equal to nothing and to no truth either: it becomes None.
    plain = frame.astype(object).where(frame.notna(), None)
    names = [str(name) for name in plain.columns]
    # By place, so that a name that stands twice is seen and refused.
    columns, labels = cell_table(names, [plain.iloc[:, i] for i in range(len(names))])
    return portfolios_of(columns, labels, where)


def results_frame(results: Iterable[MarginResult]) -> pd.DataFrame:
    """Return results as a frame, one row for each, dollars.

    Parameters
    ----------
    results
        Of any accounts and methods.
    """
    rows = [
        {
            "account": result.account,
            "method": result.method,
            "status": result.status.value,
            "equity": result.equity,
            "initial_requirement": result.initial_requirement,
            "maintenance_requirement": result.maintenance_requirement,
            "initial": result.initial,
            "maintenance": result.maintenance,
            "margin_ratio": result.margin_ratio,
            "worst": result.worst,
            "reason": result.reason,
        }
        for result in results
    ]
    return pd.DataFrame(rows)


def risk_frame(result: MarginResult) -> pd.DataFrame:
    """Return a result's risk array as a frame of label and profit."""
    return pd.DataFrame([(row.label, row.profit) for row in result.scenarios], columns=["scenario", "profit"])
