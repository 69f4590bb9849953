"""The command group ``marginline book``; what each command does stands in `keeper.commands.book`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

book_app = typer.Typer(
    no_args_is_help=True, help="Shared books: who holds and owes what on all protocols; see docs/book.md."
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Out = Annotated[Path, typer.Option(help="The .toml file; a table of positions goes beside it.")]
Positions = Annotated[
    str | None,
    typer.Option(help="inline, csv or parquet; without it inline up to 500 rows, and parquet beyond."),
]
BookPath = Annotated[Path, typer.Argument(help="A book: .toml, see docs/book.md.")]


@book_app.command("pull")
def book_pull(
    protocol: Annotated[str, typer.Option(help="aave-v3, aave-v3.6 or morpho-blue.")],
    rpc: Annotated[str, typer.Option(help="Endpoint of the chain: a URL, or env:NAME or file:PATH of one.")],
    out: Out,
    block: Annotated[int | None, typer.Option(min=0, help="Block to read at; the latest without it.")] = None,
    provider: Annotated[str | None, typer.Option(help="Address of Aave's PoolAddressesProvider.")] = None,
    morpho: Annotated[str | None, typer.Option(help="Address of Morpho Blue.")] = None,
    market: Annotated[
        str | None, typer.Option(help="Id of the Morpho Blue market, 0x and 64 digits.")
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option(help="Uniswap V3 pool to quote exits in; addresses with commas, or repeated."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="SYMBOL=DOLLARS of a Morpho market's loan token, which it has no price of."),
    ] = None,
    from_block: Annotated[
        int | None, typer.Option(min=0, help="First block that can hold a borrower; else found out.")
    ] = None,
    range_blocks: Annotated[int, typer.Option(min=1, help="Blocks per query of logs.")] = 2_000,
    name: Annotated[str | None, typer.Option(help="The venue's name in the book.")] = None,
    positions: Positions = None,
    json_: JsonFlag = False,
) -> None:
    """Read a market and all of its borrowers at one block. Exit 1 when accounts are unknown: they are named.

    A read that is not whole (a price or a reserve that is missing, borrowers that do not owe what the
    protocol counts) is refused with exit 2, and nothing is written.
    """
    from keeper.commands.book import pull

    pull(
        protocol=protocol,
        rpc_url=rpc,
        out=out,
        block=block,
        provider=provider,
        morpho=morpho,
        market=market,
        pools=[part.strip() for text in pools or () for part in text.split(",") if part.strip()],
        prices=price or (),
        from_block=from_block,
        range_blocks=range_blocks,
        name=name,
        form=positions,
        as_json=json_,
    )


@book_app.command("generate")
def book_generate(
    out: Out,
    accounts: Annotated[int, typer.Option(min=1, max=2_000_000, help="Wallets.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
    market: Annotated[
        Path | None, typer.Option(help="A book whose tokens, venues and exits to use; its accounts are not.")
    ] = None,
    leverage: Annotated[
        float | None, typer.Option(help="Mean of assets over equity; 1.65 without it.")
    ] = None,
    positions: Positions = None,
    json_: JsonFlag = False,
) -> None:
    """Generate a book from a seed: borrowers, loopers, whales, hedgers, calibrated to published leverage."""
    from keeper.commands.book import generate_book

    generate_book(
        accounts=accounts,
        seed=seed,
        out=out,
        market=market,
        leverage=leverage,
        form=positions,
        as_json=json_,
    )


@book_app.command("show")
def book_show(book: BookPath, json_: JsonFlag = False) -> None:
    """Show a book: venues, tokens, totals, leverage, health factors. Exit 1 when it has unknown accounts."""
    from keeper.commands.book import show

    show(book, as_json=json_)


@book_app.command("check")
def book_check(book: BookPath, json_: JsonFlag = False) -> None:
    """Check a book: names, bounds, limits, liquidity. Exit 2 with what is wrong, 1 with unknown accounts."""
    from keeper.commands.book import check

    check(book, as_json=json_)


@book_app.command("schema")
def book_schema() -> None:
    """Print the JSON Schema of book files, for editors and for checks of your own."""
    from keeper.commands.book import schema

    schema()
