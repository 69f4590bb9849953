"""The commands as their users have them: as processes, and in this process where that says the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keeper.cli import main
from keeper.commands.keeper_init import init
from keeper.config import Secret
from keeper.signer import TOY_COST, create_keystore
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.market import Deployment
from simulation.chain.seed import SeededState, load_or_build

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "local chain only"
ETHER = 10**18
BIGGEST_EXACT = 2**53
"""Numbers of JSON lose digits beyond it in most readers."""


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what it printed, which must be JSON whose numbers every reader takes exactly."""
        value = json.loads(self.out)
        assert_exact(value)
        return value

    def line(self, code: int = 2) -> str:
        """Return its complaint: one line on standard error, and nothing else."""
        assert self.code == code, self
        assert self.out == "", self.out
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").rstrip("\n")


def assert_exact(value: object) -> None:
    """Check that no integer in a JSON value is beyond what a float holds."""
    if isinstance(value, dict):
        for inner in value.values():
            assert_exact(inner)
    elif isinstance(value, list):
        for inner in value:
            assert_exact(inner)
    elif isinstance(value, int):
        assert abs(value) <= BIGGEST_EXACT, value


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command's process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | more


def command(*arguments: str) -> list[str]:
    """Return the words that start a command of this checkout."""
    return [sys.executable, "-m", "keeper", *arguments]


def run(*arguments: str, folder: Path | None = None, **more: str) -> Ran:
    """Run a command as a process of its own."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Inside:
    """Runs commands in this process, through the same `main`."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture

    def __call__(self, *arguments: str) -> Ran:
        self._patch.setattr(sys, "argv", ["marginline", *arguments])
        self._capture.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = self._capture.readouterr()
        return Ran(code, out, err)


@dataclass
class Local:
    """A seeded chain, a funded key, and room for configurations.

    Attributes
    ----------
    node, market
        The chain and what is on it.
    folder
        Keystore, password and whatever a test writes.
    owner
        Address of the key.
    """

    node: Anvil
    market: Deployment
    folder: Path
    owner: str

    def init_arguments(self, config: Path, *, deploy: bool = False, references: bool = True) -> list[str]:
        """Return the arguments of ``keeper init`` for this chain."""
        uniswap = self.market.uniswap
        words = ["keeper", "init", "--rpc", self.node.url, "--provider", self.market.provider]
        words += ["--config", str(config), "--uniswap-factory", uniswap.factory, "--router", uniswap.router]
        for symbol, asset in self.market.assets.items() if references else ():
            words += ["--reference", f"{symbol}={asset.reference_feed}"]
        if deploy:
            keystore, password = self.folder / "keystore.json", self.folder / "password"
            words += ["--deploy", "--keystore", str(keystore), "--password-file", str(password)]
        return words

    def write(self, config: Path, text: str) -> Path:
        """Write a configuration, and return where."""
        config.write_text(text, encoding="utf-8")
        return config


def start_local(folder: Path, *, port: int = 0, state: SeededState | None = None) -> Local:
    """Start a chain of 20 borrowers and fund a new key on it; close its `node` afterwards."""
    state = state or load_or_build(20, 1)
    node = Anvil.start(AnvilOptions(port=port, load_state=state.path))
    (folder / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    keystore = folder / "keystore.json"
    keystore.unlink(missing_ok=True)
    owner = create_keystore(keystore, Secret(PASSWORD), cost=TOY_COST)
    node.evm().set_balance(owner, 100 * ETHER)
    return Local(node, state.deployment, folder, owner)


def ready_config(local: Local, capture: pytest.CaptureFixture[str] | None = None) -> str:
    """Deploy the keeper's contract and return a configuration that observes, as text."""
    file = local.folder / "made.toml"
    file.unlink(missing_ok=True)
    uniswap = local.market.uniswap
    init(
        rpc_url=local.node.url,
        provider=local.market.provider,
        config_file=file,
        uniswap_factory=uniswap.factory,
        router=uniswap.router,
        reference=tuple(f"{s}={a.reference_feed}" for s, a in local.market.assets.items()),
        keystore=local.folder / "keystore.json",
        password_file=local.folder / "password",
        receiver=None,
        deploy=True,
        as_json=True,
    )
    if capture is not None:
        capture.readouterr()
    return file.read_text(encoding="utf-8") + '\n[limits]\nclock = "block"\n'


def sections(text: str, **more: Sequence[str]) -> str:
    """Return a configuration with lines added to sections; a new section where there is none."""
    for section, lines in more.items():
        head = f"[{section}]\n"
        body = "".join(f"{line}\n" for line in lines)
        text = text.replace(head, head + body, 1) if head in text else f"{text}\n{head}{body}"
    return text
