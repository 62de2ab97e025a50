"""What is told to whoever listens to the server's events, in schemas that have a version.

Each schema is a file beside this one, ``NAME.yaml``; its id ends in ``NAME/v1``. One that is changed in meaning gets
the next number, and with it another id (`VERSIONS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

SCHEMAS: Final = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))
"""The names of the schemas."""


VERSIONS: Final[Mapping[str, int]] = {"model": 2}
"""The versions of schemas that are past their first."""


def schema_id(name: str) -> str:
    """The id that listeners know a schema by."""
    return f"https://jupyter-mlops/events/{name}/v{VERSIONS.get(name, 1)}"


def register(logger: Any) -> None:
    """Make the schemas known to the server's event logger."""
    for name in SCHEMAS:
        logger.register_event_schema(Path(__file__).with_name(f"{name}.yaml"))


def emit(logger: Any, name: str, facts: Mapping[str, Any]) -> None:
    """Tell of something that was done; on the server's own thread."""
    try:
        logger.emit(schema_id=schema_id(name), data=dict(facts))
    except Exception as error:  # noqa: BLE001 - what was done is answered, whatever becomes of a listener
        from tornado.log import app_log

        app_log.error("jupyter_mlops could not tell of %s", name, exc_info=error)
