"""A fork of somebody's chain on a local node, to try on it what must not be tried on the chain itself."""

from __future__ import annotations

from contracts_abi.errors import InputError
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.rpc import JsonRpc


def fork(rpc_url: str, block: int | None = None, *, port: int = 0) -> Anvil:
    """Start a node that continues a chain from one of its blocks.

    The fork has the chain's id, asks for no fee, and its time goes on from that block. What it needs of the
    chain's state it reads from `rpc_url` when it needs it; nothing is ever sent there.

    Parameters
    ----------
    rpc_url
        JSON-RPC endpoint of the chain; of an archive node when `block` is not recent. Other users of this
        machine can read it in the list of processes, with the key that may be in it.
    block
        Last block of the chain that the fork has, None for its head.
    port
        TCP port of the fork, 0 for any.

    Raises
    ------
    InputError
        If the chain has no such block, or the port is taken.
    RpcUnavailable
        If the endpoint does not answer.
    ChainError
        If the node cannot start from there.
    """
    if block is not None and block < 0:
        raise InputError(f"block must not be negative, got {block}")
    with JsonRpc(rpc_url) as rpc:
        head = int(rpc.call("eth_blockNumber"), 16)
    if block is not None and block > head:
        raise InputError(f"the chain has no block {block} yet", fix=f"its head is at {head}")
    # The head is named too, so that the fork stands where it was looked up.
    return Anvil.start(
        AnvilOptions(port=port, chain_id=None, fork_url=rpc_url, fork_block=head if block is None else block)
    )
