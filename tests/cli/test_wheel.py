"""The wheel holds all that scoring needs: installed alone, away from any checkout, its command scores the sample."""

import csv
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "lmsys_ray" / "packaged" / "sample.csv"
ROWS = 24


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel of this checkout, which sees the packages of the present one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves files beside what it builds
    shutil.copytree(ROOT / "lmsys_ray", source / "lmsys_ray", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    shutil.rmtree(source)
    (wheel,) = folder.glob("*.whl")

    made = folder / "venv"
    venv.create(made, symlinks=True)
    run(*pip, "--python", made, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = made.glob("lib/python*/site-packages")
    # Paths alone, whose own .pth files are not read: so nothing leads back to an editable checkout.
    (packages / "present.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return made


def run(*command: object, cwd: Path) -> str:
    """Runs a command without this process's `PYTHONPATH`; returns its standard output."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(environment: Path, tmp_path: Path) -> None:
    place = run(environment / "bin" / "python", "-c", "import lmsys_ray; print(lmsys_ray.__file__)", cwd=tmp_path)
    package = Path(place.strip()).parent
    assert package.is_relative_to(environment)
    assert _contents(package) == _contents(ROOT / "lmsys_ray")


def _contents(package: Path) -> dict[Path, bytes]:
    """Returns every file but compiled ones and what is written for readers of the code."""
    files = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    needed = (f for f in files if "__pycache__" not in f.parts and (f.suffix != ".md" or f.parts[0] == "packaged"))
    return {file: (package / file).read_bytes() for file in needed}


@pytest.mark.slow
def test_the_wheels_command_scores_the_sample(environment: Path, tmp_path: Path) -> None:
    command = [environment / "bin" / "lmsys-ray", "score", "--output", "out", "--limit", ROWS]
    said = run(*command, "--set", "members.llama.weight=0", cwd=tmp_path)
    assert f"lightgbm: {ROWS} rows" in said
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)][:ROWS]
    with (tmp_path / "out" / "submission.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids
    for row in rows:
        probabilities = [float(row[f"winner_{name}"]) for name in ("model_a", "model_b", "tie")]
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        assert all(0 < each < 1 for each in probabilities)
    assert len({row["winner_tie"] for row in rows}) > ROWS / 2
