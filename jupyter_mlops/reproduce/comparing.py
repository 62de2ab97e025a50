"""A cell run held against its repetition: what is identical, what is within a tolerance, what differs.

Everything counts that a cell leaves behind: how it ended, variables, files, metrics and parameters, what it showed.
Variables and files are compared by digest, so by all of their content. What is shown is compared by its text after what
is volatile by nature was put aside (`VOLATILE`): these rules are all, and are written down in ``docs/reproducing.md``.

A tolerance applies to numbers that are on record as numbers: metrics, parameters, and those in texts that were kept. A
variable whose digest differs is within tolerance only where its numbers, its value or its ranges are at hand on both
sides; of a model whose value is not, that is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from jupyter_mlops.compare import columns_of
from jupyter_mlops.records import DELETED, Artifact, CellRun, Digest

IDENTICAL: Final = "identical"
TOLERANCE: Final = "within tolerance"
DIFFERS: Final = "differs"
UNKNOWN: Final = "not comparable"

Bytes = Callable[[Digest], bytes | None]
"""Gives the bytes of an object, None where they were not kept."""


class Tolerance(msgspec.Struct, frozen=True):
    """How far numbers may lie apart: by a fraction of the recorded one, or absolutely. Zero asks for the same."""

    rtol: float = 0.0
    atol: float = 0.0

    def __bool__(self) -> bool:
        return self.rtol > 0 or self.atol > 0

    def close(self, old: float, new: float) -> bool:
        """Whether two numbers lie within it; NaN equals NaN, and nothing lies near an infinity."""
        if math.isnan(old) or math.isnan(new):
            return math.isnan(old) and math.isnan(new)
        if math.isinf(old) or math.isinf(new):
            return old == new
        return old == new or abs(old - new) <= self.atol + self.rtol * abs(old)


EXACT: Final = Tolerance()


class NotTold(Exception):
    """Whether two values lie within a tolerance can not be told. Its text is the reason."""


def _not_kept(_old: Artifact, _new: Artifact, _tolerance: Tolerance) -> str | None:
    raise NotTold("its value was not kept")


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something of a cell run that is not identical in its repetition.

    Attributes
    ----------
    what
        ``status``, ``variable``, ``file``, ``metric``, ``param``, ``tag``, ``display``.
    how
        `TOLERANCE`, `DIFFERS` or `UNKNOWN`.
    old, new
        The two in words.
    detail
        Where in it: columns, a line of text.
    basis
        What was compared.
    step
        Of what was logged at a step: which.
    """

    what: str
    name: str
    how: str
    old: str = ""
    new: str = ""
    detail: str = ""
    basis: str = ""
    step: int = 0

    @property
    def key(self) -> str:
        """Under which name it was made or logged, at whatever step."""
        return self.name.removesuffix(f" (step {self.step})") if self.step else self.name


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison may look up on its two sides, and what is the same though it looks different.

    Attributes
    ----------
    old, new
        The bytes of objects.
    places
        Texts that name the one folder where it ran and the other: each pair is the same thing.
    moved
        Whether two variables that differ are the same path in the two folders.
    apart
        Where the values of two variables, brought back, lie apart by more than a tolerance: None where nowhere.
        Raises `NotTold` where they can not be brought back.
    """

    old: Bytes
    new: Bytes
    places: tuple[tuple[str, str], ...] = ()
    moved: Callable[[Artifact, Artifact], bool] = lambda _, __: False
    apart: Callable[[Artifact, Artifact, Tolerance], str | None] = _not_kept


# -- what is volatile by nature --------------------------------------------------------------------------------------

_ANSWER: Final = '<div style="--jupyter-mlops:answer">'
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
VOLATILE: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    ("colours of a terminal", re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]"), ""),
    ("addresses in memory", re.compile(r"\bat 0x[0-9a-fA-F]+\b"), "at 0x…"),
    ("bars of progress", re.compile(r"[^\n]*?\d+%\|[^\n]*?\|\s*[\d.]+[kMG]?/[\d.]+[kMG]?[^\n]*"), "(progress)"),
    ("counts of progress", re.compile(r"[^\n]*?\b\d+it \[\d+:\d+[^\n]*"), "(progress)"),
    (
        "what %time and %timeit say only of a slow run",
        re.compile(r"^(?:The slowest run took |(?:Compiler|Parser)(?: time)?\s*: ).*\n?", re.MULTILINE),
        "",
    ),
    ("times of %time and %%time", re.compile(r"^(?:CPU times: .*|Wall time: .*)$", re.MULTILINE), "(time)"),
    ("times of %timeit", re.compile(r"^.* per loop \(mean ± std\. dev\..*\)$", re.MULTILINE), "(time)"),
    ("numbers of executions", re.compile(r"\b(?:Cell )?In ?\[\d+\]|<ipython-input-\d+-[0-9a-f]+>"), "In […]"),
    ("files of a kernel", re.compile(r"/\S*/ipykernel_\d+/\d+\.py"), "(cell)"),
    ("ids in HTML", re.compile(r"\b(sk-container-id|sk-estimator-id|sk-top-container)-\d+"), r"\1-…"),
    ("ids of styled tables", re.compile(r"\bT_[0-9a-f]{5}(?=_|\b)"), "T_…"),
    ("ids of elements", re.compile(rf"(?<=\bid=[\"'])(?:{_UUID}|[0-9a-f]{{32}})|(?<=ById\([\"'])(?:{_UUID})"), "…"),
)
"""What is put aside in a text before it is compared: what it is, how it looks, what stands for it."""

_NUMBER: Final = re.compile(
    r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]\d)|\b(?:nan|NaN|inf|Infinity)\b"
)
_NUMBERS: Final = "its numbers"
_VALUES: Final = "all its numbers, of the kept values"
_WORDS: Final = frozenset({"str", "bytes", "bool", "function", "type", "builtin_function_or_method"})
"""Types that hold no number: no tolerance is asked about them."""
_RANGES: Final = "count, least, greatest, mean and standard deviation"
_TEXTS: Final = ("text/", "image/svg", "application/json")


def steady(text: str, places: Iterable[str] = ()) -> str:
    r"""A text without what is volatile by nature.

    >>> steady("<A object at 0x7f2ec5dca090>\nWall time: 3.2 ms")
    '<A object at 0x…>\n(time)'
    >>> steady("loading 3%|#   | 1/30 [00:01<00:29]\rloading 100%|####| 30/30 [00:30<00:00]\ndone")
    '(progress)\ndone'
    """
    for place in places:
        text = text.replace(place, "(folder)")
    if text.startswith(_ANSWER):
        return "(answer of mlops)"
    if "\r" in text:  # a line that is written over: what stands there in the end
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    for _, pattern, stands in VOLATILE:
        text = pattern.sub(stands, text)
    return text


def numbers_close(old: str, new: str, tolerance: Tolerance) -> bool:
    """Whether two texts are the same but for numbers, and these lie within a tolerance.

    >>> numbers_close("auc 0.91000 (n=3)", "auc 0.91001 (n=3)", Tolerance(rtol=1e-4))
    True
    """
    if _NUMBER.sub("#", old).split() != _NUMBER.sub("#", new).split():  # a table's columns are as wide as its numbers
        return False
    return all(
        tolerance.close(float(one), float(other))
        for one, other in zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    )


# -- one cell --------------------------------------------------------------------------------------------------------


def compare(old: CellRun, new: CellRun, sides: Sides, tolerance: Tolerance = EXACT) -> list[Difference]:
    """Hold a cell run against its repetition; what is identical is not listed."""
    found = list(_outcome(old, new, sides))
    found += _variables(old, new, sides, tolerance)
    found += _files(old.files_written, new.files_written)
    found += _logged(old, new, tolerance)
    found += _displays(old, new, sides, tolerance)
    return found


def verdict(differences: Iterable[Difference]) -> str:
    """The verdict that differences add up to; what is not comparable adds nothing."""
    hows = {one.how for one in differences}
    return DIFFERS if DIFFERS in hows else TOLERANCE if TOLERANCE in hows else IDENTICAL


def _outcome(old: CellRun, new: CellRun, sides: Sides) -> Iterator[Difference]:
    errors = [
        steady(one.ended.error if one.ended else "", (place[at] for place in sides.places))
        for at, one in enumerate((old, new))
    ]
    if old.status != new.status or errors[0] != errors[1]:
        yield Difference(
            what="status", name="how it ended", how=DIFFERS, old=errors[0] or old.status, new=errors[1] or new.status
        )


def _variables(old: CellRun, new: CellRun, sides: Sides, tolerance: Tolerance) -> Iterator[Difference]:
    before, after = ({one.name: one for one in run.outputs} for run in (old, new))
    removed = [set(run.ended.removed if run.ended else ()) for run in (old, new)]
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            there = one or other
            assert there is not None
            if there.type != "module":
                words = (_told(one), "not made") if other is None else ("not made", _told(other))
                yield Difference(what="variable", name=name, how=DIFFERS, old=words[0], new=words[1])
        else:
            yield from _variable(one, other, sides, tolerance)
    for name in sorted(removed[0] ^ removed[1]):
        words = ("removed", "kept") if name in removed[0] else ("kept", "removed")
        yield Difference(what="variable", name=name, how=DIFFERS, old=words[0], new=words[1])


def _told(one: Artifact | None) -> str:
    return "" if one is None else f"{one.type or one.kind}"


def _variable(old: Artifact, new: Artifact, sides: Sides, tolerance: Tolerance) -> Iterator[Difference]:
    if old.digest == new.digest and old.digest is not None:
        return
    if old.type == new.type == "module":
        return  # its own code is compared as a module, a package by its version
    if old.type != new.type:
        yield Difference(what="variable", name=old.name, how=DIFFERS, old=old.type, new=new.type, basis="types")
    elif old.digest is None or new.digest is None:
        why = old.why if old.digest is None else new.why
        yield Difference(what="variable", name=old.name, how=UNKNOWN, detail=why or "it has no digest")
    elif old.digest.partition(":")[0] != new.digest.partition(":")[0]:
        detail = "their digests were made by two rules"
        yield Difference(what="variable", name=old.name, how=UNKNOWN, detail=detail)
    elif not sides.moved(old, new):
        facts = [_facts(one, read) for one, read in ((old, sides.old), (new, sides.new))]
        basis, why = _within(old, new, (facts[0], facts[1]), sides, tolerance) if tolerance else ("", "")
        told = [part for part in (parts_changed(facts[0], facts[1]), why) if part]
        yield Difference(
            what="variable", name=old.name, how=TOLERANCE if basis else DIFFERS, old=_shape(old, facts[0]),
            new=_shape(new, facts[1]), detail="; ".join(told),
            basis=basis or "digests of the whole content",
        )  # fmt: skip


def _within(
    old: Artifact, new: Artifact, facts: tuple[Mapping[str, Any], Mapping[str, Any]], sides: Sides, tolerance: Tolerance
) -> tuple[str, str]:
    """By what a value is within a tolerance, empty where it is not; and where it is not, or why nobody can tell."""
    before, after = facts
    if before.get("shape") != after.get("shape") or old.type in _WORDS:
        return "", ""
    if old.numbers or new.numbers:
        return (_NUMBERS if values_close(list(old.numbers), list(new.numbers), tolerance) else ""), ""
    try:
        where = sides.apart(old, new, tolerance)
    except NotTold as stop:
        if all(isinstance(one.get("summary"), dict) for one in facts):
            return (_RANGES if _ranges_close(before, after, tolerance) else ""), ""
        return "", f"whether it is within the tolerance is not known: {stop}"
    return ("", where) if where is not None else (_VALUES, "")


def _ranges_close(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: Tolerance) -> bool:
    """Whether the ranges of what differs in two tables or arrays lie within a tolerance."""
    if _schema(before) != _schema(after):
        return False
    old, new = before["summary"], after["summary"]
    changed = columns_changed(before, after) or [""]
    if not all(side.get(name) and "mean" in side[name] for side in (old, new) for name in changed):
        return False  # a column of texts has no range
    return all(values_close(old[name], new[name], tolerance) for name in changed)


def _schema(facts: Mapping[str, Any]) -> Any:
    """What a table is, its content apart."""
    schema = facts.get("schema")
    if not isinstance(schema, dict):
        return schema
    columns = [(name, dtype) for name, (dtype, _) in columns_of(facts).items()]
    return {**schema, "columns": columns, "digest": None}


def _facts(one: Artifact, read: Bytes) -> dict[str, Any]:
    data = read(one.facts) if one.facts is not None else None
    try:
        found = msgspec.json.decode(data) if data else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}  # damaged facts say nothing
    return found if isinstance(found, dict) else {}


def _shape(one: Artifact, facts: Mapping[str, Any]) -> str:
    if len(one.numbers) == 1:
        return f"{one.numbers[0]:.12g}"
    shape = facts.get("shape")
    size = " × ".join(str(part) for part in shape) if isinstance(shape, list) else ""
    length = facts.get("length")
    return f"{one.type} {size}".strip() if size or not isinstance(length, int) else f"{one.type} of {length}"


def parts_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which parts of a table differ, as its facts tell them: in words, empty where they do not tell."""
    before, after = (columns_of(facts) for facts in (old, new))
    if not before or not after:
        return ""
    said = []
    if list(before) != list(after) and sorted(before) == sorted(after):
        said.append("columns in another order")
    said += [f"column {name} is gone" for name in before if name not in after]
    said += [f"column {name} is new" for name in after if name not in before]
    changed = [name for name in before if name in after and before[name] != after[name]]
    if changed:
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        said.append(f"column{'s' * (len(changed) > 1)} {', '.join(changed[:6])}{more}")
    if old.get("shape") != new.get("shape"):
        rows = [facts["shape"][0] if isinstance(facts.get("shape"), list) and facts["shape"] else None
                for facts in (old, new)]  # fmt: skip
        if None not in rows and rows[0] != rows[1]:
            said.append(f"{rows[0]} → {rows[1]} rows")
    return ", ".join(said)


def columns_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The names of the columns whose content differs, or that only one has."""
    before, after = (columns_of(facts) for facts in (old, new))
    return [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]


def facts_of(one: Artifact, read: Bytes) -> dict[str, Any]:
    """What is on record of a value's schema, shape and parts."""
    return _facts(one, read)


def _files(old: Iterable[Artifact], new: Iterable[Artifact]) -> Iterator[Difference]:
    before, after = ({one.name: one for one in side} for side in (old, new))
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            words = ("written", "not written") if other is None else ("not written", "written")
            yield Difference(what="file", name=name, how=DIFFERS, old=words[0], new=words[1])
        elif DELETED in (one.why, other.why):
            if one.why != other.why:
                words = ("deleted", "written") if one.why == DELETED else ("written", "deleted")
                yield Difference(what="file", name=name, how=DIFFERS, old=words[0], new=words[1])
        elif one.digest is None or other.digest is None:
            yield Difference(what="file", name=name, how=UNKNOWN, detail=one.why or other.why or "no digest")
        elif one.digest != other.digest:
            yield Difference(
                what="file", name=name, how=DIFFERS, old=f"{one.size} bytes", new=f"{other.size} bytes",
                basis="digests of the whole content",
            )  # fmt: skip


def _logged(old: CellRun, new: CellRun, tolerance: Tolerance) -> Iterator[Difference]:
    before, after = ({(one.what, one.key, one.step): one for one in run.logged} for run in (old, new))
    for at in dict.fromkeys((*before, *after)):
        one, other = before.get(at), after.get(at)
        what, key, step = at
        name = f"{key} (step {step})" if step else key
        if one is None or other is None:
            words = (str(one.value), "not logged") if one else ("not logged", str(other.value) if other else "")
            yield Difference(what=what, name=name, how=DIFFERS, old=words[0], new=words[1], step=step or 0)
        elif not _same(one.value, other.value) or _digest(one.artifact) != _digest(other.artifact):
            how = TOLERANCE if tolerance and values_close(one.value, other.value, tolerance) else DIFFERS
            yield Difference(
                what=what, name=name, how=how, old=str(one.value), new=str(other.value), basis="values as logged",
                step=step or 0,
            )  # fmt: skip
        elif one.artifact is not None and one.artifact.digest is None:
            yield Difference(
                what=what, name=name, how=UNKNOWN, detail=one.artifact.why or "it has no digest", step=step or 0
            )


def _digest(one: Artifact | None) -> Digest | None:
    return one.digest if one is not None else None


def _same(old: Any, new: Any) -> bool:
    """Whether two logged values are one: NaN is NaN, and 1 is not True."""
    if isinstance(old, float) and isinstance(new, float):
        return old == new or (old != old and new != new)
    return type(old) is type(new) and bool(old == new)


def values_close(old: Any, new: Any, tolerance: Tolerance) -> bool:
    """Whether two values of builtin types have the same form, and their numbers lie within a tolerance."""
    numbers = (int, float)
    if isinstance(old, numbers) and isinstance(new, numbers) and bool not in (type(old), type(new)):
        return tolerance.close(float(old), float(new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(values_close(old[key], new[key], tolerance) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            values_close(one, other, tolerance) for one, other in zip(old, new, strict=True)
        )
    return _same(old, new)


def _displays(old: CellRun, new: CellRun, sides: Sides, tolerance: Tolerance) -> Iterator[Difference]:
    before, after = (list(run.ended.displays) if run.ended else [] for run in (old, new))
    # an error is compared as the cell's end; a bar of progress may be shown any number of times
    before, after = ([one for one in side if one.name != "error"] for side in (before, after))
    if [one.name for one in before] != [one.name for one in after]:
        shown = [", ".join(one.name for one in side) or "nothing" for side in (before, after)]
        texts = [_all_text(side, read, at, sides) for at, (side, read) in
                 enumerate(((before, sides.old), (after, sides.new)))]  # fmt: skip
        if texts[0] is None or texts[0] != texts[1]:
            yield Difference(what="display", name="what it showed", how=DIFFERS, old=shown[0], new=shown[1])
        return
    for one, other in zip(before, after, strict=True):
        if one.digest != other.digest:
            yield from _display(one, other, sides, tolerance)
        elif one.digest is None:
            yield Difference(
                what="display", name=f"{one.name} ({one.type})", how=UNKNOWN, detail=one.why or "it has no digest"
            )


def _all_text(side: Iterable[Artifact], read: Bytes, at: int, sides: Sides) -> str | None:
    """All that was shown as one text, where it is all text; without what is volatile."""
    texts = [_text(one, read, at, sides) for one in side]
    known = [text for text in texts if text is not None]
    joined = "\n".join(known)
    lines = [line for line in joined.split("\n") if line.strip() and line != "(progress)"]
    return "\n".join(lines) if len(known) == len(texts) else None


def _text(one: Artifact, read: Bytes, at: int, sides: Sides) -> str | None:
    data = read(one.digest) if one.digest is not None and one.type.startswith(_TEXTS) else None
    if data is None:
        return None
    return steady(data.decode("utf-8", "surrogatepass"), (place[at] for place in sides.places))


def _display(old: Artifact, new: Artifact, sides: Sides, tolerance: Tolerance) -> Iterator[Difference]:
    name = f"{old.name} ({old.type})"
    texts = [_text(one, read, at, sides) for at, (one, read) in enumerate(((old, sides.old), (new, sides.new)))]
    if old.type == new.type and texts[0] is not None and texts[1] is not None:
        if texts[0] == texts[1]:
            return
        close = tolerance and numbers_close(texts[0], texts[1], tolerance)
        line = _first_line(texts[0], texts[1])
        yield Difference(
            what="display", name=name, how=TOLERANCE if close else DIFFERS, old=line[0], new=line[1],
            basis="numbers shown" if close else "text shown",
        )  # fmt: skip
    elif old.type.startswith(_TEXTS) and texts[0] is None and texts[1] is not None and _is_volatile(new, sides):
        detail = "its text was not kept, and it holds what is different every time"
        yield Difference(what="display", name=name, how=UNKNOWN, detail=detail)
    else:
        yield Difference(
            what="display", name=name, how=DIFFERS, old=f"{old.size} bytes", new=f"{new.size} bytes",
            basis="digests of what was shown",
        )  # fmt: skip


def _is_volatile(new: Artifact, sides: Sides) -> bool:
    data = sides.new(new.digest) if new.digest is not None else None
    text = (data or b"").decode("utf-8", "surrogatepass")
    return steady(text, (place[1] for place in sides.places)) != text


def _first_line(old: str, new: str) -> tuple[str, str]:
    """The first line in which two texts differ, of each."""
    before, after = old.split("\n"), new.split("\n")
    at = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(before), len(after)) if at is None else at
    found = [side[at].strip()[:120] if at < len(side) else "(nothing more)" for side in (before, after)]
    return found[0], found[1]
