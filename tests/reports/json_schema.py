"""As much of JSON Schema 2020-12 as our schema uses, written from the specification; unknown keywords are refused."""

from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
_SILENT = {"$schema", "title", "description", "$defs"}


def errors(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What is wrong with ``value``, each with its place."""
    found: list[str] = []
    for word, rule in schema.items():
        if word == "$ref":
            found += errors(value, root["$defs"][rule.removeprefix("#/$defs/")], root, at)
        elif word == "anyOf":
            if not any(not errors(value, option, root, at) for option in rule):
                found.append(f"{at}: {value!r:.60} is none of {rule}")
        elif word == "enum":
            found += [f"{at}: {value!r:.60} is not one of {rule}"] * (value not in rule)
        elif word == "type":
            found += [f"{at}: {value!r:.60} is no {rule}"] * (not any(_is(value, t) for t in _listed(rule)))
        elif word == "required":
            found += [f"{at}: no {name}" for name in rule if isinstance(value, dict) and name not in value]
        elif word == "properties":
            for name, inner in rule.items():
                found += errors(value[name], inner, root, f"{at}.{name}") if name in value else []
        elif word == "additionalProperties":
            for name, inner in value.items():
                found += errors(inner, rule, root, f"{at}.{name}")
        elif word == "items":
            for i, inner in enumerate(value):
                found += errors(inner, rule, root, f"{at}[{i}]")
        elif word not in _SILENT:
            raise AssertionError(f"keyword {word} is not known here")
        if found:
            return found
    return found


def _is(value: Any, name: str) -> bool:
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _listed(rule: Any) -> list[str]:
    return rule if isinstance(rule, list) else [rule]
