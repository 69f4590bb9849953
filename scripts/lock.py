"""Write ``requirements.lock`` anew from ``pyproject.toml`` and check that every pin has a wheel.

::

    .venv/bin/python scripts/lock.py                 # keep the pins that still fit
    .venv/bin/python scripts/lock.py --upgrade       # newest versions
    .venv/bin/python scripts/lock.py --check         # write nothing; fail when the file is out of date

One universal, hashed file serves all supported Pythons and platforms. It names no index: which one is used
is the machine's own setting. Needs the network and the ``uv`` that ``scripts/dev.py`` installs.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin")


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the virtual environment's uv from the project folder."""
    if importlib.util.find_spec("uv") is None:
        raise SystemExit("error: this Python has no uv; run .venv/bin/python scripts/lock.py")
    environment = {"UV_SYSTEM_CERTS": "1"} | os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    command = [sys.executable, "-m", "uv", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def compile_lock(target: Path, *extra: str) -> None:
    """Resolve all dependencies, the development group included, into `target`."""
    done = uv(
        *("pip", "compile", "pyproject.toml", "--group", "dev", "--universal", "--generate-hashes"),
        *("--python-version", PYTHONS[0], "--no-build", "--quiet"),
        *("--custom-compile-command", ".venv/bin/python scripts/lock.py", "--output-file", str(target)),
        *extra,
    )
    if done.returncode:
        raise SystemExit(f"error: the dependencies do not resolve\n{done.stderr.strip()}")
    if "://" in target.read_text(encoding="utf-8"):
        raise SystemExit(f"error: {target.name} names a host; remove the index from your uv settings")


def check_wheels(lock: Path) -> None:
    """Fail unless every pin installs from wheels alone on all supported Pythons and platforms."""
    missing = []
    for python in PYTHONS:
        for platform in PLATFORMS:
            with tempfile.TemporaryDirectory() as empty:
                done = uv(
                    *("pip", "install", "--dry-run", "--no-build", "--require-hashes", "--target", empty),
                    *("--python-version", python, "--python-platform", platform, "-r", str(lock)),
                )
            print(f"{python:5} {platform:28} {'wheels for all' if not done.returncode else 'NO WHEEL'}")
            if done.returncode:
                missing.append(done.stderr.strip())
    if missing:
        raise SystemExit("\n".join(["error: not every pin has a wheel", *missing]))


def main(arguments: list[str]) -> None:
    """Regenerate the lock file, or with ``--check`` compare it with a fresh resolution."""
    unknown = set(arguments) - {"--check", "--upgrade"}
    if unknown:
        raise SystemExit(f"error: unknown option {' '.join(sorted(unknown))}; known: --check, --upgrade")
    if "--check" not in arguments:
        compile_lock(LOCK, *arguments)
        check_wheels(LOCK)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / LOCK.name
        fresh.write_bytes(LOCK.read_bytes())  # uv keeps the pins that it finds in its output file
        compile_lock(fresh)
        if fresh.read_bytes() != LOCK.read_bytes():
            raise SystemExit("error: requirements.lock is out of date; run .venv/bin/python scripts/lock.py")
    print("requirements.lock is up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
