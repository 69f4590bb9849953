"""Prepare this checkout, then run one of its commands; needs CPython 3.11 to 3.14, PyPI and npm.

::

    python3 scripts/dev.py demo  [...]   a real Aave V3 goes through a crash: `marginline demo`
    python3 scripts/dev.py test  [...]   the tests, in parallel; further arguments go to pytest
    python3 scripts/dev.py lint          ruff, mypy and import-linter
    python3 scripts/dev.py bench [...]   the benchmarks of scripts/bench
    python3 scripts/dev.py chaos [...]   the keeper, killed at random: `marginline chaos`
    python3 scripts/dev.py run   [...]   any other `marginline` command
    python3 scripts/dev.py setup         only prepare

Preparing makes a virtual environment (`.venv`, or what MARGINLINE_VENV names), installs the locked
dependencies into it with uv, and calls `marginline setup` for the local chain and the protocol artifacts. A
stamp remembers what it was prepared from; while that stands, a command starts at once. Everything that runs
afterwards is in the wheel: this script only prepares. It parses on old Pythons so that they get an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("MARGINLINE_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".marginline-stamp"
LOG = VENV / "setup.log"
LOCK_FILE = ROOT / "requirements.lock"

OLDEST, NEWEST = (3, 11), (3, 14)
"""The Pythons that every locked package has wheels for; pyproject.toml says the same."""

PREPARED_FROM = (
    Path(__file__),
    ROOT / "pyproject.toml",
    LOCK_FILE,
    ROOT / "simulation" / "chain" / "toolchain.py",  # the npm packages with their integrity
    ROOT / "simulation" / "chain" / "solc.py",  # what is compiled of them
)

IMPORT_LINTER = "from importlinter.cli import lint_imports_command as lint; lint(['--no-logo'])"
"""Its script would name the folder that the environment was made in; this also runs after a move."""

OFFLINE = re.compile(
    r"error sending request|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|dns error"
    r"|Name or service not known|Temporary failure in name resolution|Network is unreachable",
    re.IGNORECASE,
)
UNTRUSTED = re.compile(r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED", re.IGNORECASE)


def fail(message: str) -> SystemExit:
    """Return the exit of a set-up that cannot go on: one line, code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return SystemExit(2)


def check_machine() -> None:
    """Refuse what cannot work, before anything is written."""
    supported = f"CPython {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    rerun = f"run this with {supported}, for example: python3.13 scripts/dev.py"
    this = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise fail(f"{this} is not supported; {rerun}")
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        age = "old" if sys.version_info[:2] < OLDEST else "new (ckzg, needed to sign, has no wheel for it)"
        raise fail(f"{this} is too {age}; {rerun}")
    if os.name != "posix":
        raise fail("Marginline runs on Linux and macOS; on Windows use it inside WSL")


def cache_folder() -> Path:
    """Return where `marginline setup` puts chain and artifacts; `simulation.chain.toolchain` has the rule."""
    named = os.environ.get("MARGINLINE_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "marginline"


def fingerprint() -> str:
    """Return what a prepared environment depends on, as one SHA-256; empty while there is no environment."""
    settings = VENV / "pyvenv.cfg"  # says which Python
    if not (PYTHON.exists() and settings.exists() and (cache_folder() / "npm").is_dir()):
        return ""
    digest = hashlib.sha256(f"{ROOT}\n{cache_folder()}\n{sys.version_info[:2]}\n".encode())
    for file in (settings, *PREPARED_FROM):
        content = file.read_bytes()
        digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


def is_prepared() -> bool:
    """Tell whether the stamp stands for the environment that is there."""
    try:
        return STAMP.read_text(encoding="ascii") == fingerprint() != ""
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked():
    """Hold the environment's lock: of two set-ups at once, the second waits and then finds all done."""
    import fcntl  # not on Windows, which check_machine refuses

    VENV.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{VENV}.lock", "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another set-up of the same environment", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def why(output: str) -> str:
    """Reduce the output of pip or uv to the reason, with the fix where it is known."""
    if UNTRUSTED.search(output):
        return "PyPI's certificate is not trusted; name your CA file in SSL_CERT_FILE and PIP_CERT"
    if OFFLINE.search(output):
        return "PyPI cannot be reached; connect to the network, or set HTTPS_PROXY or your mirror"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(("error:", "cause:"))] or lines[-1:]
    return " ".join(told)[:400] or "no reason given"


def step(title: str, *command: object) -> None:
    """Run one step of the set-up, its output into the log; a failure is one line that says where to look."""
    print(f"{title} ... ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")}
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:  # else uv's own list has to do
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if VENV.is_dir():
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}\n")
    if done.returncode:
        print("failed", file=sys.stderr)
        raise fail(f"{title}: {why(done.stdout)} (log: {LOG})")
    print(f"{time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def environment_works() -> bool:
    """Tell whether the environment exists, is whole and is of the Python that runs this."""
    if not PYTHON.exists():
        return False
    ask = "import sys, pip; print(*sys.version_info[:2])"
    done = subprocess.run([str(PYTHON), "-c", ask], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.split() == [str(n) for n in sys.version_info[:2]]


def make_environment() -> None:
    """Make the virtual environment, in place of what may be left of one."""
    if VENV.exists() and any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists():
        raise fail(f"{VENV} is not a virtual environment; move it away or set MARGINLINE_VENV")
    if importlib.util.find_spec("ensurepip") is None:
        raise fail(f"{sys.executable} has no venv module; on Debian and Ubuntu: apt install python3-venv")
    step(f"Virtual environment {VENV.name}", sys.executable, "-m", "venv", "--clear", VENV)


def pinned_uv() -> str:
    """Return the lock file's entry for uv, hashes included, as a requirements file."""
    entry = re.search(r"^uv==.*(?:\n[ \t].*)*", LOCK_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    if entry is None:
        raise fail("requirements.lock has no entry for uv; run .venv/bin/python scripts/lock.py")
    return entry.group() + "\n"


def prepare() -> None:
    """Make the environment fit pyproject.toml and requirements.lock; does nothing when it does."""
    if is_prepared():
        return
    with locked():
        if is_prepared():  # by the set-up that we waited for
            return
        STAMP.unlink(missing_ok=True)
        if not environment_works():
            make_environment()
        with tempfile.TemporaryDirectory() as folder:
            requirement = Path(folder) / "uv.txt"
            requirement.write_text(pinned_uv(), encoding="utf-8")
            pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2")
            step("uv from PyPI", *pip, "--require-hashes", "--no-deps", "-r", requirement)
        install = (PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON)
        step("Locked dependencies", *install, "--require-hashes", "--no-build", "-r", LOCK_FILE)
        step("Marginline itself", *install, "--no-deps", "--no-build-isolation", "--editable", ROOT)
        done = subprocess.run([str(PYTHON), "-P", "-m", "keeper", "setup"], cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)  # it has said why
        STAMP.write_text(fingerprint(), encoding="ascii")


def become(*command: object) -> None:
    """Replace this process by a command of the environment, so that signals and exit codes are its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
    environment["VIRTUAL_ENV"] = str(VENV)
    environment["PATH"] = os.pathsep.join([str(PYTHON.parent), environment.get("PATH", os.defpath)])
    sys.stdout.flush()
    os.execve(PYTHON, [str(PYTHON), *map(str, command)], environment)


def one_after_another(commands: dict[str, tuple[object, ...]]) -> None:
    """Run all commands, also behind one that fails; exit 1 if any did."""
    failed = []
    for name, command in commands.items():
        print(f"== {name}", flush=True)
        if subprocess.run([str(PYTHON), *map(str, command)], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def test(arguments: list[str]) -> None:
    """Run pytest on all cores, or as the arguments say."""
    serial = any(a in ("--pdb", "--trace") or re.match(r"-n|--numprocesses", a) for a in arguments)
    os.chdir(ROOT)
    become("-m", "pytest", *([] if serial else ["-n", "auto", "--dist", "worksteal"]), *arguments)


def lint(arguments: list[str]) -> None:
    """Check style, types and the import rules."""
    if arguments:
        raise fail(f"lint takes no arguments, got {' '.join(arguments)}")
    one_after_another(
        {
            "ruff check": ("-m", "ruff", "check"),
            "ruff format --check": ("-m", "ruff", "format", "--check"),
            "mypy": ("-m", "mypy"),
            "import-linter": ("-c", IMPORT_LINTER),
        }
    )


COMMANDS = {
    "demo": lambda arguments: become("-P", "-m", "keeper", "demo", *arguments),
    "test": test,
    "lint": lint,
    "bench": lambda arguments: become(ROOT / "scripts" / "bench", *arguments),
    "chaos": lambda arguments: become("-P", "-m", "keeper", "chaos", *arguments),
    "run": lambda arguments: become("-P", "-m", "keeper", *arguments),
    "setup": lambda arguments: print(f"ready: {VENV}"),
}


def main(arguments: list[str]) -> None:
    """Prepare, then run the command that the arguments name."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        raise SystemExit(0 if arguments else 2)
    name, *rest = arguments
    if name not in COMMANDS:
        raise fail(f"unknown command {name!r}; known: {', '.join(COMMANDS)}")
    check_machine()
    prepare()
    COMMANDS[name](rest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        raise fail(f"{error.strerror or error}: {error.filename or 'set-up'}") from None
