"""Answers with controls beside them, where a kernel stands behind: chosen in, compared, tried out.

A panel is a view like any other, and what is shown where no kernel runs is that view: on a page, in another's viewer,
in a notebook that nobody has trusted. The controls come from ipywidgets and are made when the answer is shown. What a
control changes is read anew from the record; nothing that is tried in a panel is put on record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from jupyter_mlops.checks import Check, Threshold, parse_gate
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import CellRun, CheckResult, Digest, Run, short
from jupyter_mlops.registry.aliases import providers
from jupyter_mlops.views.cells import cell_runs, show_cell_run
from jupyter_mlops.views.diffs import diff
from jupyter_mlops.views.parts import first_line
from jupyter_mlops.views.registry import checks
from jupyter_mlops.views.runs import run_list
from jupyter_mlops.views.subjects import Subject
from jupyter_mlops.widgets import Mark, Table, Text, View, clean, number, when

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_ROWS: Final = 12
_STEPS: Final = 100  # places of a slider


def timeline(read: Callable[[], Sequence[CellRun]]) -> View:
    """Cell runs to choose from, searched by their words; the chosen one is shown whole.

    Parameters
    ----------
    read
        Gives the cell runs, newest first; asked again when they are to be read anew.
    """

    def controls() -> Any:
        import ipywidgets

        found: dict[Digest, CellRun] = {}
        search = ipywidgets.Text(placeholder="words in code, state, notebook", description="Search")
        chosen = ipywidgets.Select(rows=_ROWS, description="Cell run", layout={"width": "auto"})
        again = ipywidgets.Button(description="Read anew", tooltip="What has run since")
        shown = ipywidgets.HTML()

        def narrow(*_: object) -> None:
            words, before = search.value.casefold().split(), chosen.value
            kept = {run.id: run for run in found.values() if all(word in _words(run) for word in words)}
            chosen.options = [(_line(run), name) for name, run in kept.items()]
            chosen.value = before if before in kept else next(iter(kept), None)
            show()

        def show(*_: object) -> None:
            run = found.get(chosen.value)
            shown.value = (show_cell_run(run) if run else View(blocks=[Text("No cell run has these words.")])).html()

        def reread(*_: object) -> None:
            found.clear()
            found.update({run.id: run for run in read()})
            narrow()

        search.observe(narrow, "value")
        chosen.observe(show, "value")
        again.on_click(reread)
        reread()
        return ipywidgets.VBox([ipywidgets.HBox([search, again]), chosen, shown])

    return replace(cell_runs(read()), controls=controls)


def comparison(project: Project, limit: int) -> View:
    """Runs to choose among: one is shown by its parameters and metrics, two by all that is different between them."""

    def controls() -> Any:
        import ipywidgets

        runs = {run.id: run for run in project.store.runs(limit=limit)}
        options = [(_run_line(run), run.id) for run in runs.values()]
        chosen = ipywidgets.SelectMultiple(
            options=options, rows=min(_ROWS, max(2, len(options))), description="Runs", layout={"width": "auto"},
            value=[name for _, name in options[:2]],
        )  # fmt: skip
        shown = ipywidgets.HTML()

        def show(*_: object) -> None:
            some = [runs[name] for name in chosen.value]
            parts = [side_by_side(project, some)]
            if len(some) == 2:
                newer, older = some
                parts.append(_difference(project, older, newer))
            shown.value = "".join(part.html() for part in parts)

        chosen.observe(show, "value")
        show()
        return ipywidgets.VBox([chosen, shown])

    return replace(run_list(project.store, limit), controls=controls)


def side_by_side(project: Project, runs: Sequence[Run]) -> View:
    """Parameters and metrics of runs, a column each; names whose values differ stand first."""
    from jupyter_mlops.pipelines.steps import logged

    given = [run.started.parameters for run in runs]
    found = [logged(project, run.id)[0] for run in runs]
    rows = []
    for what, columns in (("parameter", given), ("metric", found)):
        for name in sorted({name for column in columns for name in column}):
            values = [number(column[name]) if name in column else "—" for column in columns]
            differs = len(set(values)) > 1
            rows.append((not differs, (what, Mark(name, "bold") if differs else name, *values)))
    rows.sort(key=lambda row: row[0])
    if not rows:
        return View(blocks=[Text("Neither parameters nor metrics are on record of them.")])
    headings = ("", "", *(f"{short(run.id)} {run.status}" for run in runs))
    return View(blocks=[Table(headings, [row for _, row in rows])])


def _difference(project: Project, older: Run, newer: Run) -> View:
    try:
        return diff(project, *(Subject(short(run.id), run.id, run) for run in (older, newer)))
    except MlopsError as error:
        return View(blocks=[Text(str(error), "bad")])


def thresholds(
    ask: Callable[[Sequence[Check]], Sequence[CheckResult]], gates: Sequence[str], answered: View, *, title: str
) -> View:
    """Gates whose thresholds can be moved: what would pass, and what would not.

    Parameters
    ----------
    ask
        Answers gates, and puts nothing on record.
    gates
        As `checks.parse_gate` reads them.
    answered
        The answer that is on record.
    """

    def controls() -> Any:
        import ipywidgets

        asked = [parse_gate(gate, providers()) for gate in gates]

        numbers = {one.check: one.evidence.get("value") for one in answered.data}
        sliders = {
            check: _slider(ipywidgets, check, numbers.get(check.name))
            for check in asked
            if isinstance(check, Threshold)
        }
        shown = ipywidgets.HTML()

        def show(*_: object) -> None:
            tried = [
                Threshold(check.metric, check.op, sliders[check].value) if isinstance(check, Threshold) else check
                for check in asked
            ]
            try:
                view = checks(ask(tried), title=f"{title}, tried and not on record")
            except MlopsError as error:
                view = View(blocks=[Text(str(error), "bad")])
            shown.value = view.html()

        for slider in sliders.values():
            slider.observe(show, "value")
        show()
        return ipywidgets.VBox([*sliders.values(), shown])

    return replace(answered, controls=controls)


def _slider(ipywidgets: Any, check: Threshold, found: object) -> Any:
    """From a little below the smaller of what is demanded and found to a little above the larger."""
    known = [check.value, *([float(found)] if isinstance(found, int | float) and math.isfinite(found) else [])]
    room = (max(known) - min(known)) or abs(check.value) / 10 or 1.0
    low, high = min(known) - room, max(known) + room
    # Its description names it for the eye alone: noUiSlider names a handle by `handleAttributes`, which ipywidgets 8
    # does not give it, and no trait of a slider reaches its handle.
    return ipywidgets.FloatSlider(
        value=check.value, min=low, max=high, step=(high - low) / _STEPS, readout_format=".4g", continuous_update=False,
        description=clean(f"{check.metric} {check.op}"), style={"description_width": "initial"},
        layout={"width": "28em"},
    )  # fmt: skip


def _words(run: CellRun) -> str:
    started = run.started
    return f"{run.status} {started.notebook} {started.label} {run.source}".casefold()


def _line(run: CellRun) -> str:
    count = f"[{run.started.count}] " if run.started.count else ""
    return clean(f"{when(run.time)}  {run.status:11}  {count}{first_line(run.source)}")


def _run_line(run: Run) -> str:
    given = " ".join(f"{name}={number(value)}" for name, value in run.started.parameters.items())
    return clean(f"{when(run.time)}  {run.status:11}  {run.started.notebook or '—'}  {given}")
