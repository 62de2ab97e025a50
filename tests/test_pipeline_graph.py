"""Pipelines on paper: the file, its order and what is refused; as text, flowchart and workflow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jupyter_mlops import cli
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines import exporting, graph
from jupyter_mlops.pipelines.graph import Member, Observed, PipelineInvalid, pipeline_of, resolved
from jupyter_mlops.pipelines.running import State
from jupyter_mlops.project import Project
from jupyter_mlops.records import Digest, Run, RunStarted
from jupyter_mlops.views import mermaid

HERE = Path("/work")


def member(name: str, *, reads: str = "", writes: str = "", **more: object) -> Member:
    return Member(notebook=f"{name}.ipynb", reads=reads.split(), writes=writes.split(), **more)  # type: ignore[arg-type]


def seen(name: str, reads: str, writes: str, **parameters: object) -> Observed:
    run = Run(id=Digest("blake3:" + "0" * 64), time="", started=RunStarted(trigger="papermill", parameters=parameters))
    return Observed(notebook=HERE / f"{name}.ipynb", run=run, reads=reads.split(), writes=writes.split())


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(PipelineInvalid) as error:
        graph.read(path)
    return str(error.value)


def test_steps_are_put_in_order_by_what_passes_between_them() -> None:
    found = pipeline_of(
        {
            "evaluate": member("evaluate", reads="model table", parameters={"rows": "${prepare.rows}"}),
            "train": member("train", reads="table", writes="model"),
            "prepare": member("prepare", reads="raw", writes="table"),
            "notes": member("notes", after=["evaluate"]),
        },
        HERE,
    )
    assert list(found.steps) == ["prepare", "train", "evaluate", "notes"]
    assert {(tie.before, tie.after): tie.what for tie in found.ties} == {
        ("prepare", "train"): ("table",), ("prepare", "evaluate"): ("prepare.rows", "table"),
        ("train", "evaluate"): ("model",), ("evaluate", "notes"): (),
    }  # fmt: skip
    assert found.needed(["train"]) == ["prepare", "train"]
    assert found.needed([]) == list(found.steps)
    with pytest.raises(PipelineInvalid, match=r"no step 'tran' \(is it train\?\)"):
        found.needed(["tran"])


def test_a_ring_is_named_with_what_passes() -> None:
    steps = {
        "a": member("a", reads="z", writes="x"), "b": member("b", reads="x", writes="y"),
        "c": member("c", reads="y", writes="z"),
    }  # fmt: skip
    with pytest.raises(PipelineInvalid, match="in a ring") as error:
        pipeline_of(steps, HERE)
    for words in ("b (x)", "c (y)", "a (z)"):
        assert words in error.value.cause


def test_two_writers_of_one_file_are_named() -> None:
    with pytest.raises(PipelineInvalid, match=r"out/x\.csv is written by two steps, a and b"):
        pipeline_of({"a": member("a", writes="out/"), "b": member("b", writes="out/x.csv")}, HERE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: {a: {notebok: a.ipynb}}", "unknown key 'notebok' (is it notebook?)"),
        ("stages: {a: a.ipynb}", "unknown key 'stages' (is it steps?)"),
        ("steps: {a: {notebook: a.ipynb, after: [b]}}", "a is to come after 'b', which is no step"),
        ("steps: {a: {notebook: a.ipynb, after: a}}", "a is to come after itself"),
        ("steps: {a: {notebook: a.ipynb, retries: many}}", "Expected `int | null`, got `str`"),
        ("steps: {a: {notebook: a.ipynb, cache: always}}", "Invalid enum value 'always' - at `$.cache`"),
        ("steps: {a: {notebook: a.ipynb, parameters: {x: '${prep.rows}'}}}", "takes ${prep.rows}, and 'prep' is no"),
        ("steps: {a: {output: a.ipynb}}", "the step a in pipeline.yaml names no notebook"),
        ("steps: {'a b': a.ipynb}", "'a b' in pipeline.yaml is no name for a step"),
        ("steps: {}", "pipeline.yaml has no steps"),
        ("steps: {a: 3}", "the step a in pipeline.yaml is no mapping"),
        ("steps: {a: &x {notebook: a.ipynb}, b: *x}", "aliases are not allowed here"),
        ("steps: [", "can not be read as YAML"),
    ],
)
def test_a_file_that_is_off_is_refused_with_the_place_and_what_would_do(text: str, words: str, tmp_path: Path) -> None:
    assert words in refused(text, tmp_path)


def test_a_file_that_is_missing_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineInvalid, match=r"there is no pipeline .*mlops pipeline infer NOTEBOOK"):
        graph.read(tmp_path / "pipeline.yaml")


def test_what_is_found_is_written_as_a_file_that_reads_back(tmp_path: Path) -> None:
    found = graph.infer(
        [
            seen("train", "table.parquet", "model.skops", depth=3),
            seen("sub/prepare", "raw.csv ../far.csv", "table.parquet " + " ".join(f"parts/{n}.csv" for n in range(20))),
        ],
        HERE, lambda name: HERE / name,
    )  # fmt: skip
    path = tmp_path / "pipeline.yaml"
    graph.write(found, path)
    assert path.read_text().partition("\n")[2] == (
        "steps:\n"
        "  prepare:\n    notebook: sub/prepare.ipynb\n    reads: [raw.csv, ../far.csv]\n"
        "    writes: [table.parquet, parts/]\n"
        "  train:\n    notebook: train.ipynb\n    parameters: {depth: 3}\n    after: [prepare]\n"
        "    reads: [table.parquet]\n    writes: [model.skops]\n"
    )
    again = graph.read(path)
    assert (again.steps, again.ties) == (found.steps, found.ties)


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 9), max_size=3), st.sets(st.integers(0, 9), max_size=2)),
        min_size=1,
        max_size=6,
    )
)
def test_every_order_has_writers_before_readers_or_there_is_none(files: list[tuple[set[int], set[int]]]) -> None:
    steps = {
        f"s{number}": member(
            f"s{number}", reads=" ".join(f"f{one}" for one in reads), writes=" ".join(f"f{one}" for one in writes)
        )
        for number, (reads, writes) in enumerate(files)
    }
    try:
        found = pipeline_of(steps, HERE)
    except PipelineInvalid:
        twice = len(once := [one for _, writes in files for one in writes]) != len(set(once))
        needs = {
            name: {other for other, one in steps.items() if other != name and set(step.reads) & set(one.writes)}
            for name, step in steps.items()
        }
        left = dict(needs)
        while free := [name for name, before in left.items() if not before & set(left)]:
            for name in free:
                del left[name]
        assert twice or left
        return
    order = list(found.steps)
    for name, step in steps.items():
        for other, one in steps.items():
            if name != other and set(step.reads) & set(one.writes):
                assert order.index(other) < order.index(name)


def test_values_of_earlier_steps_keep_their_type_where_nothing_stands_around_them() -> None:
    values = {"prepare": {"rows": 12, "part": {"a": [1]}, "name": "x"}}
    assert resolved(
        {"n": "${prepare.rows}", "all": ["${ prepare.part }"], "to": "run-${prepare.name}-$$1", "plain": 2}, values
    ) == {"n": 12, "all": [{"a": [1]}], "to": "run-x-$1", "plain": 2}
    with pytest.raises(WrongUse, match=r"prepare has not given back 'row': it logged name, part, rows\."):
        resolved({"n": "${prepare.row}"}, values)


def test_a_flowchart_takes_no_markup_from_names() -> None:
    found = pipeline_of({"a": member('"]<b>a', writes="x#y"), "b": member("b", reads="x#y")}, HERE)
    text = mermaid(found, {name: State(current=name == "a") for name in found.steps})
    assert text.splitlines() == [
        "flowchart TD",
        '    s0["a<br/>#quot;]#lt;b#gt;a.ipynb"]',
        '    s1["b<br/>b.ipynb"]',
        '    s0 -->|"x#35;y"| s1',
        "    classDef current fill:#dbe9d8",
        "    class s0 current",
    ]


def test_the_exported_workflow_has_the_shape_that_is_published_for_workflows(tmp_path: Path) -> None:
    import json
    from importlib import resources

    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("check_jsonschema")
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    (tmp_path / "requirements.txt").write_text("pandas\n")
    (tmp_path / "flights it's").mkdir()
    file = tmp_path / "flights it's" / "pipeline.yaml"
    file.write_text("steps: {a: a.ipynb, b: {notebook: b.ipynb, output: done/b.ipynb, after: a}}\n")
    text = exporting.github(Project.open(tmp_path), graph.read(file), keep_going=True)
    workflow = yaml.safe_load(text)
    jsonschema.validate(workflow, json.loads(vendored.read_text()))
    steps = workflow["jobs"]["pipeline"]["steps"]
    assert steps[1]["with"]["cache-dependency-path"] == "requirements.txt"
    assert steps[3]["run"].endswith("--keep-going --file 'flights it'\"'\"'s/pipeline.yaml'")
    assert steps[4]["with"]["path"].split("\n")[:2] == ["flights it's/a.out.ipynb", "flights it's/done/b.ipynb"]


def test_a_pipeline_is_shown_drawn_and_exported_from_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbformat.v4 import new_notebook

    monkeypatch.chdir(tmp_path)
    Project.open(tmp_path)
    for name in "ab":
        nbformat.write(new_notebook(), f"{name}.ipynb")
    (tmp_path / "pipeline.yaml").write_text(
        "steps: {a: {notebook: a.ipynb, writes: x}, b: {notebook: b.ipynb, reads: x}}\n"
    )
    shown = cli.call(("pipeline", "show", "-o", "seen.png"), cli.Place())
    assert shown.ok
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    text = cli.call(("pipeline", "show"), cli.Place()).text(columns=200)
    assert "never" in text
    assert "to run: no run like it is on record" in text
    assert "to run: a before it is to run" in text
    assert cli.call(("pipeline", "show", "--mermaid"), cli.Place()).startswith("flowchart TD")
    with pytest.raises(WrongUse, match="no picture's name"):
        cli.call(("pipeline", "show", "-o", "seen.svg"), cli.Place())

    place = ".github/workflows/pipeline.yml"
    assert cli.call(("pipeline", "export", "--github", "-o", place), cli.Place()) == f"wrote {place}"
    assert "mlops pipeline run --file pipeline.yaml" in (tmp_path / place).read_text()
    with pytest.raises(WrongUse, match="is there already"):
        cli.call(("pipeline", "infer", "a.ipynb"), cli.Place())
