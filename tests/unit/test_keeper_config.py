"""The configuration: what it refuses and in which words, and that no secret gets out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from contracts_abi.errors import InputError
from keeper.config import (
    KeeperConfig,
    Mode,
    Secret,
    load_config,
    parse_config,
    resolve_secret,
    wei_of_eth,
    wei_of_gwei,
)

PROVIDER = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
BASE = f"""
chain_id = 31337
[rpc]
url = "http://127.0.0.1:8545"
[[protocols]]
kind = "aave-v3"
provider = "{PROVIDER}"
[fees]
priority_fee_gwei = 0.1
[signer]
keystore_file = "key.json"
password = "file:password"
"""
CANARY = "s3cr3t-canary"


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_config(text, name="keeper.toml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("keeper.toml: ")
    assert caught.value.exit_code == 2
    return line


def test_defaults_are_safe() -> None:
    config = parse_config(BASE)
    assert config.mode is Mode.OBSERVE
    assert config.signer is not None
    assert config.limits.max_in_flight > 0


def test_amounts_keep_the_digits_that_were_written() -> None:
    config = parse_config(BASE)
    assert config.fees.priority_fee_gwei == Decimal("0.1")
    assert wei_of_gwei(config.fees.priority_fee_gwei) == 100_000_000
    assert wei_of_eth(Decimal("0.000000000000000001")) == 1
    text = parse_config(BASE.replace("priority_fee_gwei = 0.1", 'priority_fee_gwei = "0.1"'))
    assert text.fees == config.fees


def test_protocol_keeps_the_keys_of_its_adapter() -> None:
    config = parse_config(BASE.replace("[fees]", "close_factor = 3\n[fees]"))
    assert config.protocols[0].options == {"close_factor": 3}
    assert config.protocols[0].provider == "0x5FbDB2315678afecb367f032d93F642f64180aa3"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[fees]", "[limits]\nmax_inflight = 3\n[fees]", "did you mean 'limits.max_in_flight'?"),
        ("[fees]", "[fee]", "unknown key 'fee'; did you mean 'fees'?"),
        ("[[protocols]]", "[[protocol]]", "did you mean 'protocols'?"),
        ("url =", "ulr =", "unknown key 'rpc.ulr'; did you mean 'rpc.url'?"),
        ("chain_id", "folder = 1\nchain_id", "unknown key 'folder'"),
        ("chain_id = 31337", "", "chain_id: is missing"),
        ("chain_id = 31337", "chain_id = -1", "chain_id = -1: must be greater than 0"),
        ("chain_id", 'mode = "liv"\nchain_id', "mode = 'liv': must be 'observe', 'dry-run' or 'live'"),
        ("gwei = 0.1", "gwei = -2", "fees.priority_fee_gwei = -2: must be greater than or equal to 0"),
        ("gwei = 0.1", "gwei = nan", "fees.priority_fee_gwei"),
        ("[fees]", "[fees]\nbase_fee_headroom = 1.1", "base_fee_headroom = 1.1: must be greater than or"),
        (PROVIDER, PROVIDER[:-1], "not an address of 20 bytes"),
        (PROVIDER, PROVIDER.replace("fb", "Fb"), "checksum does not match"),
        ("chain_id = 31337", "chain_id = ", "not TOML"),
    ],
)
def test_what_is_refused_is_named_with_what_would_be_right(old: str, new: str, says: str) -> None:
    assert old in BASE
    assert says in refused(BASE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("file:password", CANARY),
        ("http://127.0.0.1:8545", f"http://user:{CANARY}@[::1"),
        ('"http://127.0.0.1:8545"', f'["{CANARY}"]'),
        ("[signer]", f'[alerts]\nwebhook = "https://hooks.example/{CANARY}"\n[signer]'),
    ],
)
def test_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "keeper.toml").write_text(BASE.replace(old, new, 1))
    show = "from pathlib import Path; from keeper.config import load_config; "
    show += "c = load_config(Path('keeper.toml')); print(c, repr(c), c.rpc_shown, c.model_dump_json())"

    shown = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )

    # Whatever Python itself prints of it, with causes and contexts.
    assert CANARY not in shown.stdout + shown.stderr
    assert "keeper.toml" in shown.stderr or "KeeperConfig" in shown.stdout or "mode=" in shown.stdout


def test_url_with_a_key_is_never_shown() -> None:
    config = parse_config(BASE.replace("127.0.0.1:8545", f"me:{CANARY}@node.example:1/v3/{CANARY}"))
    assert CANARY not in repr(config)
    assert CANARY not in str(config)
    assert CANARY not in config.model_dump_json()
    assert config.rpc_shown == "http://node.example:1/***"
    assert CANARY in config.rpc_url.reveal()


def test_references_resolve_beside_the_file_and_never_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(CANARY + "\n")
    (tmp_path / "keeper.toml").write_text(BASE)
    monkeypatch.setenv("MARGINLINE_TEST_URL", f"http://x/{CANARY}")
    config = load_config(tmp_path / "keeper.toml")
    assert config.signer is not None

    secret = config.secret(config.signer.password, "signer.password")

    assert secret.reveal() == CANARY
    assert CANARY not in f"{secret} {secret!r} {[secret]}"
    assert config.path(config.signer.keystore_file) == tmp_path / "key.json"
    url = parse_config(BASE.replace("http://127.0.0.1:8545", "env:MARGINLINE_TEST_URL")).rpc_url
    assert url.reveal() == f"http://x/{CANARY}"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("env:MARGINLINE_NOT_SET", "MARGINLINE_NOT_SET is not set"),
        ("file:nowhere", "No such file"),
        (CANARY, "not a reference"),
        ("file:", "not a reference"),
    ],
)
def test_reference_that_leads_nowhere(tmp_path: Path, reference: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        resolve_secret(reference, what="signer.password", folder=tmp_path)
    assert str(caught.value).startswith("signer.password: ")
    assert CANARY not in str(caught.value)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keeper init"):
        load_config(tmp_path / "keeper.toml")


def test_configuration_cannot_be_changed() -> None:
    config = parse_config(BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.mode = Mode.LIVE  # type: ignore[misc] # that it cannot is the point


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a section and all sections inside it."""
    found = [model]
    for info in model.model_fields.values():
        for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += sections(inner)
    return found


@pytest.mark.parametrize("section", sections(KeeperConfig), ids=lambda s: s.__name__)
def test_every_key_is_documented(section: type[BaseModel]) -> None:
    plain = {"rpc", "protocols", "signer", "contracts", "router", "execution", "fees", "limits", "journal"}
    plain |= {"jobs", "alerts", "folder"}
    for name, info in section.model_fields.items():
        assert info.description or (section is KeeperConfig and name in plain), name


def test_secret_compares_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
