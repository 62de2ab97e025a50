"""Where something comes from, as text, as JSON and as a picture: the version that was asked for."""

from __future__ import annotations

import base64
import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.lineage import lineage
from jupyter_mlops.records import Artifact, CellEnded, CellRun, CellStarted, Digest, digest_of
from jupyter_mlops.views.drawing import MOST, picture


def pixels(data: bytes) -> tuple[int, int]:
    """Width and height as a PNG says them."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def asked(page: Any, what: str) -> dict[str, Any]:
    return json.loads(page.say(f"%mlops lineage {what}").json())


def sources(answer: dict[str, Any]) -> list[str]:
    return [run["started"]["source"] for run in answer["runs"]]


def test_a_variable_that_was_overwritten_later_leads_to_the_version_asked_for(page: Any) -> None:
    page.all(a="x = [1]", b="y = x + [2]", c="x = [7]", d="z = x")
    first, read = page.last("a").id.partition(":")[2][:12], page.last("b").id.partition(":")[2][:12]
    assert sources(asked(page, "x")) == ["x = [7]"]
    assert sources(asked(page, f"x@{first}")) == ["x = [1]"]
    assert sources(asked(page, f"x@{read}")) == ["x = [1]"]
    assert sources(asked(page, "y")) == ["x = [1]", "y = x + [2]"]
    assert sources(asked(page, "z")) == ["x = [7]", "z = x"]
    page.run("a")
    assert sources(asked(page, "y")) == ["x = [1]", "y = x + [2]"]


def test_a_metric_a_file_and_a_cell_run_lead_back(page: Any, project_folder: Path) -> None:
    (project_folder / "in.txt").write_text("1 2 3")
    page.all(
        a="with open('in.txt') as f: xs = [int(x) for x in f.read().split()]",
        b="from jupyter_mlops import log_metric\nlog_metric('total', sum(xs))",
        c="with open('out.txt', 'w') as f: f.write(str(sum(xs)))",
        d="with open('out.txt') as f: back = f.read()",
    )
    for what in ("total", "out.txt", page.last("c").id.partition(":")[2][:12]):
        answer = asked(page, what)
        assert len(answer["runs"]) == 2
        assert [one["name"] for one in answer["files"]] == ["in.txt"]
    answer = asked(page, "back")
    assert len(answer["runs"]) == 3
    assert {(node["kind"], node["label"]) for node in answer["nodes"]} >= {("file", "in.txt")}
    assert {name for edge in answer["edges"] for name in edge["names"]} == {"xs", "out.txt"}


def test_a_file_that_no_cell_wrote_comes_from_outside_and_names_its_readers(page: Any, project_folder: Path) -> None:
    (project_folder / "in.txt").write_text("1")
    page.all(a="with open('in.txt') as f: x = f.read()")
    view = page.say("%mlops lineage in.txt")
    assert "it comes from outside" in view.text()
    assert page.last("a").id.partition(":")[2][:10] in view.text()
    assert view.data["runs"] == []


def test_a_notebook_shows_a_picture_beside_the_text(page: Any) -> None:
    page.all(a="x = 1", b="y = x")
    bundle = page.say("%mlops lineage y")._repr_mimebundle_()
    wide, high = pixels(base64.b64decode(bundle["image/png"]))
    assert wide > 100
    assert high > 100
    assert "y = x" in bundle["text/plain"]
    assert bundle["text/html"].count("<img ") == 1


def test_a_shell_draws_into_a_file_and_prints_text(page: Any, project_folder: Path) -> None:
    page.all(a="x = 1", b="y = x")
    page.record()
    run = [sys.executable, "-m", "jupyter_mlops", "lineage", "y"]
    done = subprocess.run([*run, "-o", "y.png"], capture_output=True, text=True, check=True)
    assert "drawn: y.png" in done.stdout
    pixels((project_folder / "y.png").read_bytes())
    assert "y = x" in subprocess.run(run, capture_output=True, text=True, check=True).stdout
    wrong = subprocess.run([*run, "-o", "y.svg"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "ends in .png" in wrong.stderr


def test_drawing_leaves_the_users_figures_and_settings_alone(page: Any) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    page.all(a="x = 1")
    before = dict(mpl.rcParams), plt.get_fignums()
    page.say("%mlops lineage x")._repr_mimebundle_()
    assert (dict(mpl.rcParams), plt.get_fignums()) == before


def chain(number: int, parents: list[int], source: str) -> CellRun:
    name = digest_of(str(number).encode())
    after = [digest_of(str(one).encode()) for one in parents]
    inputs = [Artifact(name=f"v{one}", kind="variable", made=made) for one, made in zip(parents, after, strict=True)]
    return CellRun(
        id=name, time="2026-01-01T00:00:00.000000Z", writer="w", seq=number,
        started=CellStarted(run=name, source=source, notebook="n.ipynb", cell=f"c{number}", count=number),
        ended=CellEnded(cell_run=name, status="done", after=after, inputs=inputs),
    )  # fmt: skip


def graph_of(runs: list[CellRun]) -> Any:
    found: dict[Digest, CellRun] = {run.id: run for run in runs}
    return lineage([runs[-1].id], found.__getitem__)


def test_thirty_nodes_are_drawn_large_enough_to_read_and_boxes_do_not_meet() -> None:
    from jupyter_mlops.views.drawing import _HIGH, _WIDE, _laid_out

    rng = random.Random(5)
    runs = [chain(0, [], "start = 0")]
    for number in range(1, 30):
        parents = sorted({*rng.sample(range(number), k=min(number, rng.randint(1, 3))), number - 1})
        runs.append(chain(number, parents, f"v{number} = " + " + ".join(f"v{one}" for one in parents)))
    graph = graph_of(runs)
    nodes, edges = graph.nodes()
    assert len(nodes) == 30
    places, ways, _, _ = _laid_out(nodes, edges)
    boxes = [places[node.id] for node in nodes]
    for place, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[:place]:
            assert abs(x - other_x) >= _WIDE or abs(y - other_y) >= _HIGH
    for (parent, child), way in ways.items():
        assert way[0] == places[parent]
        assert way[-1] == places[child]
        assert [y for _, y in way] == sorted(y for _, y in way)
    pixels(picture(graph, title="v29"))


def test_hostile_text_is_drawn_as_text() -> None:
    hostile = r"$\frac{" + "\x1b[31m" + r"}$ \input{/etc/passwd} <script>" + "\u202e" + "飞行" * 50 + "\0"
    graph = graph_of([chain(0, [], "x = 1"), chain(1, [0], hostile)])
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": True}):
        pixels(picture(graph, title=hostile))


def test_a_ring_of_hostile_records_and_a_very_long_lineage_are_drawn() -> None:
    pixels(picture(graph_of([chain(0, [1], "x"), chain(1, [0], "y")]), title="ring"))
    long = [chain(0, [], "v0 = 0")] + [chain(number, [number - 1], f"v{number} = v") for number in range(1, 3 * MOST)]
    _, high = pixels(picture(graph_of(long), title="long"))
    assert high < 65536


def test_what_is_not_there_to_draw_is_wrong_use(page: Any, project_folder: Path) -> None:
    (project_folder / "in.txt").write_text("1")
    page.all(a="with open('in.txt') as f: x = f.read()")
    with pytest.raises(WrongUse, match="nothing to draw"):
        page.say("%mlops lineage in.txt -o in.png")
