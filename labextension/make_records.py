"""Writes ``src/records.ts``: what the server answers, as TypeScript, from the JSON Schemas of its structs.

Run as ``python labextension/make_records.py``; a test fails where the file is not what this would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from jupyter_mlops.capture.live import PROTOCOL, TARGET
from jupyter_mlops.server.acting import ACTED
from jupyter_mlops.server.answers import ANSWERS
from jupyter_mlops.server.comparing import Compared
from jupyter_mlops.server.differing import DIFFERENT
from jupyter_mlops.server.environments import ENVIRONMENTS
from jupyter_mlops.server.forms import ORDERED, Form, OrderChecked
from jupyter_mlops.server.jobs import Job, JobList
from jupyter_mlops.server.lineages import Lineage, Names
from jupyter_mlops.server.models import MODELS
from jupyter_mlops.server.routes import API
from jupyter_mlops.server.sent import SENT

TARGET_FILE = Path(__file__).with_name("src") / "records.ts"


def text() -> str:
    """The file's content."""
    every = (
        *ANSWERS, *MODELS, *DIFFERENT, *SENT, *ACTED, *ORDERED, *ENVIRONMENTS, Form, OrderChecked, Job, JobList,
        Compared, Lineage, Names,
    )  # fmt: skip
    _, components = msgspec.json.schema_components(every, ref_template="{name}")
    parts = [
        "// Made by make_records.py from the server's own structs: not to be edited.\n",
        f"/** Version of what page, server and kernel say to one another. */\nexport const PROTOCOL = {PROTOCOL};\n",
        f"/** The kernel's comm. */\nexport const TARGET = '{TARGET}';\n",
        f"/** Where the server answers, below its base address. */\nexport const API = '{API}';\n",
    ]
    for name, schema in sorted(components.items()):
        parts.append(_interface(name, schema))
    return "\n".join(parts)


def _interface(name: str, schema: dict[str, Any]) -> str:
    about = schema.get("description", "").strip().partition("\n")[0]
    required = set(schema.get("required", ()))
    lines = [f"/** {about} */"] if about else []
    lines.append(f"export interface {name} {{")
    for field, facts in schema["properties"].items():
        lines.append(f"  {field}{'' if field in required else '?'}: {_type(facts)};")
    return "\n".join([*lines, "}\n"])


def _type(facts: dict[str, Any]) -> str:
    if "$ref" in facts:
        return str(facts["$ref"])
    if "enum" in facts:
        return " | ".join(f"'{one}'" for one in facts["enum"])
    if "anyOf" in facts:
        return " | ".join(_type(one) for one in facts["anyOf"])
    kind = facts.get("type")
    if kind == "array":
        inner = _type(facts["items"]) if isinstance(facts.get("items"), dict) else "unknown"
        return f"({inner})[]" if " " in inner else f"{inner}[]"
    if kind == "object":
        inner = facts.get("additionalProperties")
        return f"Record<string, {_type(inner) if isinstance(inner, dict) else 'unknown'}>"
    return {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}.get(
        str(kind), "unknown"
    )


if __name__ == "__main__":
    TARGET_FILE.write_text(text())
