"""report.schema.json: in step with the dataclasses, true of every report, false of what is none."""

import json
from typing import Any

import pytest
from hypothesis import given

from gn_deploy.errors import InputError
from gn_deploy.parity.harness import compare
from gn_deploy.parity.report import ParityReport
from gn_deploy.reports import as_json
from gn_deploy.reports.schema import schema, shipped
from tests.parity.spellings import alone, native, primitives
from tests.reports.json_schema import errors
from tests.reports.strategies import QUICK, REPORTS

SCHEMA = json.loads(shipped())


def wrong(document: Any) -> list[str]:
    return errors(document, SCHEMA, SCHEMA)


def test_the_shipped_file_is_the_one_made_from_the_dataclasses() -> None:
    assert shipped() == as_json.dumps(schema()), "run: python -m gn_deploy.reports.schema"


@QUICK
@given(REPORTS)
def test_any_report_goes_to_json_and_comes_back(report: ParityReport) -> None:
    text = as_json.render(report)
    document = json.loads(text)
    assert wrong(document) == []
    back = ParityReport.from_dict(document)
    assert as_json.render(back) == text
    assert back.held == report.held
    assert back.exit_code == report.exit_code


def test_a_real_report_fits_the_schema() -> None:
    document = json.loads(as_json.render(compare(alone(native()), alone(primitives()), title="real")))
    assert wrong(document) == []
    assert len(document["sites"][0]["histogram"]) == 34
    assert document["sites"][0]["group"]["x"]


def test_every_field_of_a_report_is_in_the_schema_and_documented(full: ParityReport) -> None:
    def keys(value: Any, rule: dict[str, Any]) -> None:
        rule = SCHEMA["$defs"][rule["$ref"].removeprefix("#/$defs/")] if "$ref" in rule else rule
        if "anyOf" in rule:
            rule = (
                SCHEMA["$defs"][rule["anyOf"][0]["$ref"].removeprefix("#/$defs/")]
                if value and "$ref" in rule["anyOf"][0]
                else {}
            )
        if isinstance(value, dict) and "properties" in rule:
            assert set(value) <= set(rule["properties"])
            for name, inner in value.items():
                assert name in (as_json.__doc__ or ""), f"{name} is not documented"
                keys(inner, rule["properties"][name])
        for inner in value if isinstance(value, list) and "items" in rule else ():
            keys(inner, rule["items"])

    keys(json.loads(as_json.render(full)), SCHEMA)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"held": "yes"}, "$.held"),
        ({"schema_version": 3}, "$.schema_version"),
        ({"sites": [{"site": "a", "runtime": "r", "status": "good"}]}, "$.sites[0]"),
        ({"sites": {}}, "$.sites"),
        ({"environment": {"numpy": 2}}, "$.environment.numpy"),
    ],
)
def test_what_is_no_report_is_refused_by_schema_and_reader(
    change: dict[str, Any], told: str, full: ParityReport
) -> None:
    document = full.to_dict() | change
    assert [message.partition(":")[0] for message in wrong(document)] == [told] or wrong(document)[0].startswith(told)
    if "held" not in change:  # said for readers; the verdict is worked out again
        with pytest.raises(InputError, match="schema"):
            ParityReport.from_dict(document)


def test_a_report_of_version_1_is_read(full: ParityReport) -> None:
    """What release 0.1.0 wrote: none of the fields that came with version 2."""
    document = full.to_dict() | {"schema_version": 1}
    for name in ("votes", "located", "blamed", "confidence", "noticed", "accepted"):
        del document[name]
    for site in document["sites"]:
        for name in ("looks_like", "histogram", "group"):
            del site[name]
    for task in document["tasks"]:
        for name in ("difference", "interval", "allowed_drop", "status", "reason"):
            del task[name]
    assert wrong(document) == []
    back = ParityReport.from_dict(document)
    assert [v.status for v in back.sites] == [v.status for v in full.sites]
    assert back.to_dict()["schema_version"] == 2
