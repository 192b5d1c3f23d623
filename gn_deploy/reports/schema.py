"""report.schema.json: what report.json may hold, as JSON Schema 2020-12 made from the dataclasses of the report.

``python -m gn_deploy.reports.schema`` writes the file that ships with the package again; a test says when that is due.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from gn_deploy.parity.report import READABLE, SCHEMA_VERSION, ParityReport
from gn_deploy.reports.as_json import dumps

FILE = "report.schema.json"
_LEFT_OUT = {"RuntimeVerdict": ("seconds",)}  # a clock; see ParityReport.to_dict
_WORDS = {str: "string", int: "integer", bool: "boolean"}


def schema() -> dict[str, Any]:
    """The schema of every version that this release reads; what version 1 did not have is not required.

    A number is null for NaN and a word for an infinity, which JSON does not have.
    """
    kinds: dict[str, type] = {}
    _collect(ParityReport, kinds)
    number = {"description": "null is NaN", "anyOf": [{"type": ["number", "null"]}, {"enum": ["inf", "-inf"]}]}
    definitions = {"Number": number} | {name: _definition(kind) for name, kind in kinds.items()}
    report = definitions.pop("ParityReport")
    head = {
        "schema_version": {"enum": list(READABLE), "description": f"{SCHEMA_VERSION} is what this release writes"},
        "verdict": {"enum": ["held", "broken"]},
        "held": {"type": "boolean"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gn_deploy parity report",
        "description": report["description"],
        "type": "object",
        "properties": head | report["properties"],
        "required": [*head, *report["required"]],
        "$defs": dict(sorted(definitions.items())),
    }


def shipped() -> str:
    """The text of the file in the package."""
    return files("gn_deploy.reports").joinpath(FILE).read_text("utf-8")


def _collect(kind: type, found: dict[str, type]) -> None:
    found[kind.__name__] = kind
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint), *(p for a in get_args(hint) for p in get_args(a))):
            if isinstance(part, type) and (is_dataclass(part) or issubclass(part, Enum)):
                if part.__name__ not in found and is_dataclass(part):
                    _collect(part, found)
                found[part.__name__] = part


def _definition(kind: Any) -> dict[str, Any]:
    described = {"description": _line(inspect.getdoc(kind) or "")}
    if issubclass(kind, Enum):
        return described | {"enum": [member.value for member in kind]}
    hints, words = get_type_hints(kind), dict(_docstrings(kind))
    kept = [f for f in fields(kind) if f.name not in _LEFT_OUT.get(kind.__name__, ())]
    told = {f.name: {"description": words[f.name]} if f.name in words else {} for f in kept}
    return described | {
        "type": "object",
        "properties": {f.name: told[f.name] | _type(hints[f.name]) for f in kept},
        "required": [f.name for f in kept if _required(f)],
    }


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _type(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [*(_type(h) for h in inner if h is not type(None)), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _type(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(inner[1])}
    if hint is float:
        return {"$ref": "#/$defs/Number"}
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, Enum)):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {"type": _WORDS[hint]} if hint in _WORDS else {}


def _docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """(field, the string below it) of a class, which Python itself does not keep."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for line, below in zip(definition.body, definition.body[1:], strict=False):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, _line(text)


def _line(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(dumps(schema()), "utf-8")
