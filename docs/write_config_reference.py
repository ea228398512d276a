"""Write docs/config.md, the reference of campaign.toml, from the schema that reads it (`make docs`)."""

import json
from pathlib import Path
from typing import Any

from al_leignn.config import CampaignConfig

PAGE = Path(__file__).with_name("config.md")
HEAD = """# campaign.toml

Every key, its default, what it may be, and what it means. `al-leignn init` writes the file with defaults derived from your
structure; `al-leignn check` reads it back. Unknown keys are refused. Written by `make docs` from `al_leignn/config.py`.
"""
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
NAMES = {"number": "number", "integer": "whole number", "boolean": "true or false", "string": "text", "object": "table"}


def reference() -> str:
    """Return the page: the top-level keys first, then one table a section (labellers: one a type)."""
    schema = CampaignConfig.model_json_schema()
    sections = {name: _targets(value) for name, value in schema["properties"].items()}
    plain = {name: value for name, value in schema["properties"].items() if not sections[name]}
    parts = [HEAD, _table(plain)]
    for name, targets in sections.items():
        for target in targets:
            definition = schema["$defs"][target]
            keys = definition["properties"]
            variant = f" with type = {_toml(keys['type']['const'])}" if len(targets) > 1 else ""
            parts.append(f"## [{name}]{variant}\n\n{definition['description']}\n\n{_table(keys)}")
    return "\n".join(parts)


def _targets(value: dict[str, Any]) -> list[str]:
    """Names of the sections that a key holds; empty for a plain key."""
    return [option["$ref"].rpartition("/")[2] for option in value.get("oneOf", [value]) if "$ref" in option]


def _table(keys: dict[str, Any]) -> str:
    rows = ["| key | default | may be | meaning |", "| --- | --- | --- | --- |"]
    for name, value in keys.items():
        rows.append(f"| `{name}` | {_default(value)} | {_allowed(value)} | {value.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _default(value: dict[str, Any]) -> str:
    if "default" in value:
        return "absent" if value["default"] is None else f"`{_toml(value['default'])}`"
    # The schema leaves out defaults made by a factory; they are empty lists and tables.
    made = {"array": "`[]`", "object": "`{}`"}.get(value.get("type", ""), "required")
    return "required" if "minItems" in value else made


def _allowed(value: dict[str, Any]) -> str:
    if "oneOf" in value:  # a section inside a section: its type says which keys it has
        return "table with type = " + ", ".join(f"`{_toml(kind)}`" for kind in value["discriminator"]["mapping"])
    if "$ref" in value:
        return "table"
    if "anyOf" in value:
        return " or ".join(_allowed(option) for option in value["anyOf"] if option.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{_toml(option)}`" for option in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        items = value.get("prefixItems") or [value["items"]]
        return f"{len(items)} × {_allowed(items[0])}" if len(items) > 1 else f"list of: {_allowed(items[0])}"
    limits = " and ".join(f"{sign} {value[key]:g}" for key, sign in LIMITS.items() if key in value)
    return f"{NAMES[value['type']]} {limits}".strip()


def _toml(value: object) -> str:
    # For the strings, numbers, booleans and lists of the defaults, TOML and JSON are written alike.
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
