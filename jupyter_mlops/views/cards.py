"""A model version's card as Markdown: what it is, what it was trained on, how good it is, and what is not known.

Everything in it is recorded text, and may be hostile: it is escaped, so that where the card is shown none of it is a
link, a picture, a heading or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import CheckResult, RecordInvalid, short
from jupyter_mlops.widgets import Text, View, clean, number, size, when

if TYPE_CHECKING:
    from jupyter_mlops.checks import Signature
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry, VersionInfo

_MARKS: Final = re.compile(r"[\\`*_\[\]<>#|~&@]|^[-+]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def card(project: Project, info: VersionInfo) -> View:
    """A version's card; its text is Markdown."""
    from jupyter_mlops.registry import LocalRegistry

    parts = list(_parts(LocalRegistry(project.store), info))
    return View(blocks=[Text("\n\n".join(parts))], data={"model": info.ref, "markdown": "\n\n".join(parts)})


def marked(text: object) -> str:
    r"""Any recorded text on one line of Markdown, as nothing but text.

    >>> print(marked("<b>*a*</b> at http://x.example"))
    \<b\>\*a\*\</b\> at http\://x.example
    """
    return _MARKS.sub(lambda found: "\\" + found[0], " ".join(clean(text, newlines=True).split()))


def _parts(registry: LocalRegistry, info: VersionInfo) -> Iterable[str]:
    record = info.record
    yield f"# {marked(info.name)}, version {info.version}"
    if record.description:
        yield marked(record.description)
    yield _table(
        ("", ""),
        [
            ("Aliases", ", ".join(f"@{alias}" for alias in info.aliases) or "none"),
            ("Registered", f"{when(info.time)} by {record.by}"),
            ("Class", info.type or "not known"),
            ("Format", f"{record.model.type}, {size(record.model.size)}"),
            ("Bytes", record.model.digest or "none on record"),
            ("Made by", f"cell run {short(record.cell_run)}" if record.cell_run else "no cell run on record"),
            *((f"Tag {key}", value) for key, value in sorted(record.tags.items())),
        ],
    )
    yield from _values("Metrics", record.metrics)
    yield from _values("Parameters", record.parameters)
    yield "## Takes and gives"
    yield _signature(registry, info)
    yield "## Trained on"
    yield (
        _table(
            ("Data", "Type", "Content"),
            [(one.name, one.type, short(one.digest) if one.digest else one.why) for one in record.training],
        )
        if record.training
        else "Not on record."
    )
    yield "## Gates"
    asked = _asked(registry, info)
    yield _table(
        ("Gate", "Answer", "Found", "Demanded", "When"),
        [
            (one.check, "passed" if one.passed else "refused", one.evidence.get("found", one.summary),
             one.evidence.get("demanded", ""), when(time))
            for time, one in asked
        ],
    ) if asked else "None was asked yet."  # fmt: skip
    approvals = [(time, one) for time, one in registry.approvals(info.digest) if one.passed]
    if approvals:
        yield "## Approved"
        yield _table(("By", "When", "Why"), [(one.by, when(time), one.summary) for time, one in approvals])
    if record.requirements:
        yield "## Requirements"
        yield marked(", ".join(record.requirements))
    yield "## Not known"
    gaps = [(gap.subject, gap.reason) for gap in record.gaps]
    yield _table(("What", "Why"), gaps) if gaps else "No gap is on record."


def _values(title: str, values: dict[str, Any]) -> Iterable[str]:
    if values:
        yield f"## {title}"
        yield _table(("", ""), [(key, number(value)) for key, value in sorted(values.items())])


def _signature(registry: LocalRegistry, info: VersionInfo) -> str:
    try:
        found: Signature | None = registry.signature(info)
    except (MlopsError, RecordInvalid) as error:  # lost or damaged: the rest of the card stands
        return marked(f"Can not be read: {error}")
    if found is None:
        return "Not known."
    columns = [("takes", one) for one in found.inputs] + [("gives", one) for one in found.outputs]
    return _table(("", "Column", "Type"), [(what, one.name, one.dtype) for what, one in columns])


def _asked(registry: LocalRegistry, info: VersionInfo) -> list[tuple[str, CheckResult]]:
    """The last answer to each gate, with its time."""
    from jupyter_mlops.checks import APPROVAL

    last: dict[str, tuple[str, CheckResult]] = {}
    for _, time, one in registry.store.records(CheckResult):
        if one.subject == info.digest and one.check != APPROVAL:
            last.setdefault(one.check, (time, one))
    return [last[check] for check in sorted(last)]


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *([marked(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
