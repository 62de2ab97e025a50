"""The answer that nothing has changed: it is given so often that it loads no records."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_mlops.widgets import Text, View


def pipeline_unchanged(steps: Sequence[tuple[str, str]]) -> View:
    """A pipeline of which nothing has changed."""
    return View(
        blocks=[Text(f"Nothing has changed: {len(steps)} step{'s' * (len(steps) != 1)}, nothing ran.", tone="good")],
        data={
            "status": "cached",
            "run": None,
            "steps": {name: {"status": "cached", "run": run} for name, run in steps},
        },
    )
