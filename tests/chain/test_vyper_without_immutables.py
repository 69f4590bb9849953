"""Our contracts compile where `immutables` has no wheel (CPython 3.14), and to the same bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contracts_abi.artifacts import vyper_artifact, vyper_names

COMPILE = """
import sys
sys.modules["immutables"] = None  # importing it raises ModuleNotFoundError
from contracts_abi.artifacts import vyper_artifact
for name in sys.argv[1:]:
    print(vyper_artifact(name).bytecode.hex())
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="here it is the only way that the other tests run")
def test_the_bytecode_does_not_depend_on_immutables() -> None:
    names = vyper_names()
    assert names
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [vyper_artifact(name).bytecode.hex() for name in names]
