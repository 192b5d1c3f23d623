"""demo and test make .venv once, in the right order, repeat what was interrupted, and work from any folder.

Python and pip are played by fake_python.sh, so these tests tell what would be installed, not that it can be.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_python.sh")
SCRIPTS = ["scripts/demo", "scripts/test", "scripts/environment.sh", ".ci/run"]

TORCH = "pip torch==2.13.0+cpu --disable-pip-version-check"


class Checkout:
    """A copy of what the scripts need, with a fake Python on PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout with a space"
        for name in [*SCRIPTS, "pyproject.toml"]:
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        shutil.copy(FAKE, self.bin / "python3")

    def run(self, script: str, *arguments: str, cwd: Path | None = None, **env: str) -> tuple[int, str, list[str]]:
        """Exit code, everything printed, and what was made or installed."""
        self.log.write_text("")
        done = subprocess.run(
            ["bash", str(self.root / script), *arguments],
            cwd=cwd or self.root,
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "FAKE_LOG": str(self.log), "FAKE_FAULT": "", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        return done.returncode, done.stdout, self.log.read_text().splitlines()

    def package(self, extra: str) -> str:
        return f"pip {self.root}[{extra}] --editable"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(script: str) -> None:
    subprocess.run(["bash", "-n", str(REPOSITORY / script)], check=True)


@pytest.mark.parametrize("script", ["scripts/demo", "scripts/test", ".ci/run"])
def test_can_be_typed(script: str) -> None:
    assert os.access(REPOSITORY / script, os.X_OK)
    assert (REPOSITORY / script).read_text().startswith("#!/usr/bin/env bash\n")


def test_first_run_installs_torch_before_the_package_and_second_run_nothing(checkout: Checkout) -> None:
    code, printed, did = checkout.run("scripts/demo")
    assert (code, did) == (0, ["venv", TORCH, checkout.package("demo")])
    assert "Making .venv with Python 3.12.1" in printed
    assert (checkout.root / ".venv/constraints.txt").read_text() == "torch==2.13.0+cpu\n"
    code, printed, did = checkout.run("scripts/demo")
    assert (code, did, printed.splitlines()[:-1]) == (0, [], [])


def test_arguments_and_folder_of_the_user_reach_the_demo(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    _, printed, _ = checkout.run("scripts/demo", "--out", "a b", cwd=elsewhere)
    assert printed.splitlines()[-1] == f"ran gn-deploy demo --out a b in {elsewhere}"


def test_arguments_go_to_pytest_alone_in_the_root(checkout: Checkout, tmp_path: Path) -> None:
    _, printed, _ = checkout.run("scripts/test", "tests/parity", "-k", "x", cwd=tmp_path)
    assert printed.splitlines()[-1] == f"ran -m pytest tests/parity -k x in {checkout.root}"
    assert "ran mypy" not in printed


def test_an_environment_for_tests_serves_the_demo_but_not_the_reverse(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    assert checkout.run("scripts/test")[2] == [checkout.package("test")]
    (checkout.root / ".venv/gn-deploy.demo").unlink()
    assert checkout.run("scripts/demo")[2] == []


def test_a_changed_pyproject_installs_again_but_keeps_torch(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert checkout.run("scripts/demo")[2] == [checkout.package("demo")]
    assert checkout.run("scripts/demo")[2] == []


def test_an_interrupted_installation_is_repeated(checkout: Checkout) -> None:
    code, printed, _ = checkout.run("scripts/demo", FAKE_FAULT="--editable")
    assert code != 0
    assert "ran gn-deploy" not in printed
    assert checkout.run("scripts/demo")[2] == [checkout.package("demo")]


def test_a_half_made_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    (checkout.root / ".venv/bin/pip").unlink()
    assert checkout.run("scripts/demo")[2][0] == "venv"


def test_a_moved_checkout_makes_a_new_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("scripts/demo")
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert checkout.run("scripts/demo")[2][0] == "venv"


def test_where_the_index_has_no_cpu_build_pytorchs_own_is_asked(checkout: Checkout) -> None:
    _, _, did = checkout.run("scripts/demo", FAKE_FAULT="+cpu")
    assert did[2] == "pip https://download.pytorch.org/whl/cpu --extra-index-url"


def test_an_old_python_is_told(checkout: Checkout) -> None:
    for newer in ("python3.11", "python3.12", "python3.13"):
        shutil.copy(FAKE, checkout.bin / newer)
    code, printed, did = checkout.run("scripts/demo", FAKE_VERSION="3.10.4")
    assert (code, did) == (3, [])
    assert "Python 3.11 or later is needed" in printed
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
def test_everything_is_checked(checkout: Checkout, script: str) -> None:
    code, printed, _ = checkout.run(script)
    ran = [line.split(" in ")[0] for line in printed.splitlines() if line.startswith("ran ")]
    pytest_ran = "ran pytest -n logical --dist worksteal"
    assert (code, ran) == (0, ["ran ruff check", "ran mypy ", "ran lint-imports ", pytest_ran])


@pytest.mark.parametrize("tool", ["ruff", "mypy", "lint-imports", "pytest"])
def test_one_failure_fails_but_the_others_still_run(checkout: Checkout, tool: str) -> None:
    checkout.run("scripts/test")
    code, printed, _ = checkout.run("scripts/test", FAKE_FAULT=tool)
    assert code == 1
    assert printed.count("ran ") == 4
    assert printed.splitlines()[-1] == f"failed: {tool}"
