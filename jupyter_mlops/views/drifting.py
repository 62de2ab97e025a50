"""How far columns have moved, and what fell where, then and now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from jupyter_mlops.checks import Drift
from jupyter_mlops.checks.drift import DRIFTED, STEADY, UNKNOWN
from jupyter_mlops.records import CheckResult
from jupyter_mlops.registry.contracts import ContractBroken
from jupyter_mlops.views.parts import tick
from jupyter_mlops.widgets import Mark, Table, Text, View, clean

_BARS: Final = " ▁▂▃▄▅▆▇█"
_ROWS: Final = 30
_WIDE: Final = 24
_BAR: Final = 24
_ORDER: Final = {DRIFTED: 0, UNKNOWN: 1, STEADY: 2}
_TONES: Final = {DRIFTED: "bad", UNKNOWN: "dim", STEADY: "good"}


def drift(result: CheckResult, found: Sequence[Drift], *, strict: bool = False) -> View:
    """Columns that have moved first, those next of which it is not known.

    Raises
    ------
    ContractBroken
        One has moved, and that is to be an error.
    """
    if strict and not result.passed:
        raise ContractBroken(result)
    limit = float(result.evidence["limit"])
    return View(
        title=f"{tick(result.passed)} {result.summary}", blocks=[*_columns(found, limit)], data=result, ok=result.passed
    )


def _columns(found: Sequence[Drift], limit: float) -> list[Table | Text]:
    ordered = sorted(found, key=lambda one: (_ORDER[one.verdict(limit)], -(one.value or 0.0), one.name))
    rows = [
        (one.name, Mark(one.verdict(limit), _TONES[one.verdict(limit)]), _index(one.value), _index(one.chance),
         _bars(one.then), _bars(one.now), one.why or _few(one, limit))
        for one in ordered[:_ROWS]
    ]  # fmt: skip
    blocks: list[Table | Text] = [
        Table(("column", "", "index", "chance (95 %)", "then", "now", ""), rows, right=frozenset({2, 3}))
    ]
    if len(ordered) > len(rows):
        blocks.append(Text(f"and {len(ordered) - len(rows):,} more", tone="dim"))
    blocks.append(Text(f"Population stability index; drifted is what is above {limit:g} and above chance.", tone="dim"))
    return blocks


def _few(one: Drift, limit: float) -> str:
    return "too few rows to tell from chance" if one.verdict(limit) == UNKNOWN else ""


def _index(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _bars(counts: Sequence[int]) -> str:
    """The shares of bins as one line of bars, the largest of the first of them at full height."""
    most = max(counts, default=0)
    return "".join(_BARS[-(-8 * one // most)] for one in counts[:_WIDE]) if most else ""


def drifts(found: Sequence[Drift], answered: View, *, limit: float) -> View:
    """The same with a slider for the limit, and each column's bins to look into.

    Parameters
    ----------
    answered
        The answer that is on record.
    """

    def controls() -> Any:
        import ipywidgets

        values = [one.value for one in found if one.value is not None]
        most = max([2 * limit, *values]) or 1.0
        slider = ipywidgets.FloatSlider(
            value=limit, min=0.0, max=most, step=most / 100, readout_format=".3g", continuous_update=False,
            description="Limit", layout={"width": "28em"},
        )  # fmt: skip
        chosen = ipywidgets.Dropdown(description="Column", options=_choices(found, limit))
        shown = ipywidgets.HTML()

        def show(*_: object) -> None:
            at = slider.value
            moved = sum(one.verdict(at) == DRIFTED for one in found)
            title = f"{moved} of {len(found)} columns above {at:.3g}, tried and not on record"
            parts = [View(title=title, blocks=[*_columns(found, at)])]
            if chosen.value is not None:
                parts.append(_bins(found[chosen.value]))
            shown.value = "".join(part.html() for part in parts)

        slider.observe(show, "value")
        chosen.observe(show, "value")
        show()
        return ipywidgets.VBox([ipywidgets.HBox([slider, chosen]), shown])

    return replace(answered, controls=controls)


def _choices(found: Sequence[Drift], limit: float) -> list[tuple[str, int]]:
    places = sorted(range(len(found)), key=lambda at: (_ORDER[found[at].verdict(limit)], -(found[at].value or 0.0)))
    return [(clean(found[at].name), at) for at in places if found[at].bins]


def _bins(one: Drift) -> View:
    whole, other = sum(one.then) or 1, sum(one.now) or 1
    shares = [(name, then / whole, now / other) for name, then, now in zip(one.bins, one.then, one.now, strict=True)]
    most = max(max(then, now) for _, then, now in shares)
    rows = [
        (name, f"{then:.1%}", f"{now:.1%}", "█" * round(_BAR * then / most), "█" * round(_BAR * now / most))
        for name, then, now in shares
    ]
    headings = (one.name, "then", "now", "then", "now")
    return View(title=f"What fell where in {one.name}", blocks=[Table(headings, rows, right=frozenset({1, 2}))])
