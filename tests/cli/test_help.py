"""--help of every command: three examples that the command takes, and lines that fit a terminal."""

import argparse
import shlex
from importlib import import_module

import pytest

from lmsys_ray import __version__
from lmsys_ray.cli.main import COMMANDS
from lmsys_ray.config.command_options import parse_options
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings

FORMER = {"train-lora"}


def parser_of(command: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = import_module(f"lmsys_ray.cli.{command.replace('-', '_')}").parser("the-command")
    return made


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - FORMER))
def test_three_examples_are_shown_that_the_command_takes(command: str) -> None:
    parser = parser_of(command)
    text = parser.format_help()
    shown = text.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(shown) == 3
    assert len(set(shown)) == 3
    for line in shown:
        program, *arguments = shlex.split(line)
        assert program == "the-command"
        parser.parse_args(arguments)
    assert max(map(len, text.splitlines())) <= 112
    assert "Exit codes: " in " ".join(text.split()) or command in {"benchmark"}


def test_the_example_of_a_leaderboard_sets_options_that_are_there() -> None:
    text = parser_of("leaderboard").format_help()
    sets = [word for word in shlex.split(text.partition("\nexamples:\n")[2].partition("\n\n")[0]) if "=" in word]
    assert parse_options(LeaderboardSettings, sets).model_fields_set == {"style", "outcomes"}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - FORMER))
def test_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lmsys-ray {__version__}\n"


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("score", "--ouptut x", "--ouptut is not a flag; did you mean --output?"),
        ("score", "--weight=0.3", "--weight is not a flag; see --help, and give settings as --set weight=0.3"),
        ("score", "test.csv", "nothing takes the arguments test.csv; see --help"),
        (
            "train-lightgbm",
            "--input x.csv --output y --learning_rate 0.1",
            "--learning_rate is not a flag; see --help, and give settings as --set learning_rate=VALUE",
        ),
        ("status", "runs/today --nothing", "--nothing is not a flag; see --help"),
    ],
)
def test_flags_that_are_unknown(command: str, given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args(given.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"the-command: error: {said}"


@pytest.mark.parametrize("command", ["calibrate", "evaluate", "leaderboard", "report", "status"])
def test_a_run_is_named_with_its_flag_or_without(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(command)
    flag = {"report": "--texts", "status": "--json"}.get(command, "--output other")
    for given in ("--run runs/today", "runs/today", f"runs/today {flag}", f"{flag} runs/today"):
        assert parser.parse_args(given.split()).run == "runs/today"
    for given, said in (
        ("", "a run directory is needed: --run RUN_DIR"),
        ("runs/today runs/other", "nothing takes the arguments runs/other; see --help"),
        ("--ruin runs/today", "--ruin is not a flag; did you mean --run?"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(given.split())
        assert capsys.readouterr().err.splitlines()[-1] == f"the-command: error: {said}"
