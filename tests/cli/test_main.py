"""The installed command `lmsys-ray` as a user types it."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lmsys_ray
from lmsys_ray.cli.main import COMMANDS

PACKAGE = Path(lmsys_ray.__file__).parent

LOADED = """
import sys
from lmsys_ray.cli.main import main
try:
    main()
finally:
    print("loaded:", sorted({"ray", "torch"} & sys.modules.keys()))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """What an installer makes of the entry point."""
    path = tmp_path / "bin" / "lmsys-ray"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom lmsys_ray.cli.main import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_help_lists_every_command_in_one_line(program: Path) -> None:
    done = run(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line for line in done.stdout.splitlines() if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(len(line.split()) > 3 for line in listed)


def test_every_file_of_a_command_is_listed_and_is_a_job() -> None:
    shared = {"__init__", "command", "main", "parsing", "training_flags", "training_page"}
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - shared
    jobs = {path.stem for path in (Path(__file__).parents[2] / "jobs").glob("*.py")}
    assert {name.replace("-", "_") for name in COMMANDS} == files == jobs


def test_version(program: Path) -> None:
    done = run(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"lmsys-ray {lmsys_ray.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scor"], "error: 'scor' is not a command of lmsys-ray; did you mean score?\n"),
        (["train_lightgmb"], "error: 'train_lightgmb' is not a command of lmsys-ray; did you mean train-lightgbm?\n"),
        (["x"], f"error: 'x' is not a command of lmsys-ray; accepted: {', '.join(COMMANDS)}\n"),
        ([], f"error: a command is needed: {', '.join(COMMANDS)}; lmsys-ray --help says what each does\n"),
    ],
)
def test_what_is_no_command_is_one_sentence(program: Path, arguments: list[str], sentence: str) -> None:
    done = run(program, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


@pytest.mark.parametrize("name", [*COMMANDS, "train_lightgbm", "import_artifacts"])
def test_usage_names_the_command_as_it_was_typed(program: Path, name: str) -> None:
    done = run(program, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: lmsys-ray {name} ")
    assert not re.search(r"\w\.py\b", done.stdout)
    wrong = run(program, name, "--no-such-flag")
    assert wrong.returncode == 2
    assert f"\nlmsys-ray {name}: error: " in wrong.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
    ],
)
def test_help_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    done = run(sys.executable, "-c", LOADED, *arguments)
    assert done.stdout.endswith("loaded: []\n")


def test_flags_and_exit_codes_are_those_of_the_command(program: Path, tmp_path: Path) -> None:
    done = run(program, "score", "--output", tmp_path / "run", "--set", "shard_rows=0")
    assert done.returncode == 2
    assert done.stderr == "error: settings: shard_rows = 0 is not accepted; accepted: greater than 0 or 'auto'\n"


@pytest.mark.parametrize("on_path", [True, False])
def test_a_stopped_command_is_named_as_a_shell_finds_it(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool
) -> None:
    if on_path:
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    config = tmp_path / "run.yaml"
    os.mkfifo(config)
    arguments = ["score", "--config", str(config), "--input", "a b.csv"]
    process = subprocess.Popen(
        ["lmsys-ray" if on_path else str(program), *arguments], stderr=subprocess.PIPE, text=True
    )
    with config.open("w"):  # opens once the command reads it, which then waits for what is never written
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    name = "lmsys-ray" if on_path else str(program)
    assert said == f"stopped; what is done is kept, resume with: {shlex.join([name, *arguments])}\n"
