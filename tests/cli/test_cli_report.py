"""gn-deploy report: a report shown again, and two compared, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gn_deploy.reports import write
from tests.cli.conftest import Ended
from tests.reports.conftest import report

Cli = Callable[..., Ended]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Two reports: a held one in a folder, and one of schema 1 with a site that fails."""
    held = report(3)
    write(held, tmp_path / "before")
    old = held.to_dict() | {"schema_version": 1, "verdict": "broken", "held": False}
    old["sites"][4] |= {"status": "fail"}
    old["sites"][4]["metrics"]["error_over_bound"] = 12.5
    for name in ("votes", "located", "blamed", "confidence", "noticed", "accepted"):
        del old[name]
    (tmp_path / "old.json").write_text(json.dumps(old))
    return tmp_path


def test_diff_says_what_got_worse_and_exits_with_1(here: Cli, reports: Path) -> None:
    ended = here("report", "diff", "before", "old.json")
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines()[0] == "✗ Something got worse. 2 changes: 2 worse."
    assert "fail 12.5" in ended.err
    assert "Traceback" not in ended.err


def test_diff_the_other_way_is_better_and_exits_with_0(here: Cli, reports: Path) -> None:
    document = (ended := here("report", "diff", "old.json", "before/report.json", "--json")).document
    assert ended.code == 0
    assert (document["schema_version"], document["worse"]) == (1, False)
    assert [(c["kind"], c["direction"]) for c in document["changes"]] == [("verdict", "better"), ("site", "better")]
    assert document["before"]["verdict"] == "broken"
    assert here("report", "diff", "before", "before").err.startswith("✓ Nothing got worse. No change.")


def test_show_prints_and_writes_what_parity_wrote(here: Cli, reports: Path) -> None:
    written = {name: (reports / "before" / name).read_bytes() for name in ("report.html", "junit.xml")}
    ended = here("report", "show", "before", "--html", "page.html", "--junit", "cases.xml")
    assert ended.code == 0, ended.err
    assert ended.err.startswith("✓ Parity held. 3 GroupNorms on 4 runtimes")
    assert "wrote page.html" in ended.err
    assert (reports / "page.html").read_bytes() == written["report.html"]
    assert (reports / "cases.xml").read_bytes() == written["junit.xml"]


def test_show_brings_an_old_report_to_the_schema_of_today(here: Cli, reports: Path) -> None:
    ended = here("report", "show", "old.json", "--json")
    assert ended.code == 0  # shown, not judged
    assert ended.document["schema_version"] == 2
    assert ended.document["verdict"] == "broken"


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["report", "dif", "a", "b"], "unknown command 'report dif'", "did you mean 'diff'?"),
        (["report", "qqq"], "unknown command 'report qqq'", "one of show, diff"),
        (["report", "diff", "before"], "Missing argument 'B'", "see 'gn-deploy report diff --help'"),
        (["report", "show", "before", "--html", "x", "--junit", "./x"], "are both 'x'", "two files"),
        (["report", "diff", "before", "nowhere"], "no such file: nowhere", "gn-deploy parity A B --report"),
        (["report", "show", "bad.json"], "bad.json is not JSON", "gn-deploy parity A B --report"),
        (["report", "show", "before", "--html", "no/page.html"], "the folder 'no' is missing", "mkdir"),
        (["report", "show", "before", "--html", "before"], "it is a folder", "name a file"),
    ],
)
def test_what_is_wrong_is_told_in_two_lines(args: list[str], message: str, hint: str, here: Cli, reports: Path) -> None:
    (reports / "bad.json").write_text("{")
    ended = here(*args)
    first, second = ended.err.splitlines()
    assert ended.code == 2
    assert message in first
    assert hint in second


def test_report_alone_is_its_help(here: Cli) -> None:
    ended = here("report")
    assert ended.code == 0
    assert "diff" in ended.out
    assert "show" in ended.out
