"""The record over HTTP: who may ask, what is answered, and what happens when a store is broken, locked or gone."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from labs import REPOSITORY, Lab
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellStarted,
    Environment,
    Gap,
    Package,
    RunEnded,
    RunStarted,
    Ticket,
    digest_of,
    short,
)
from jupyter_mlops.registry import GateRefused, LocalRegistry, RunContext
from jupyter_mlops.store import Store

API = "jupyter-mlops/api/"


def write_run(store: Store, notebook: str, cells: int = 12) -> tuple[str, list[str]]:
    """Put a session on record: every third cell failed, every fourth drew unseeded numbers."""
    run = store.append(
        RunStarted(trigger="session", notebook=notebook, user="alice", parameters={"rate": float("nan")})
    )
    names = []
    for number in range(cells):
        cell = store.append(
            CellStarted(
                run=run, notebook=notebook, cell=f"cell-{number % 5}", count=number + 1, redacted=int(number == 1),
                source=f"\n# step {number}\nframe_{number} = load({number})",
            )
        )  # fmt: skip
        store.append(CellLogged(run=run, cell_run=cell, what="metric", key="auc", value=0.5))
        store.append(CellLogged(run=run, cell_run=cell, what="metric", key="auc", value=number / 10))
        store.append(
            CellEnded(
                cell_run=cell, status="error" if number % 3 == 0 else "done", seconds=0.25,
                error="ValueError: no\nmore" if number % 3 == 0 else "",
                randomness={"numpy": "unseeded"} if number % 4 == 0 else {},
                outputs=[Artifact(name=f"frame_{number}", kind="variable", digest=digest_of(b"%d" % number))],
                gaps=[Gap(subject="x", reason="unseen", blocks=True)] if number == 2 else [],
            )
        )  # fmt: skip
        names.append(cell)
    store.append(RunEnded(run=run, status="done", seconds=3.0))
    return run, names


@pytest.fixture(scope="module")
def project(lab: Lab) -> Path:
    folder = lab.root / "served"
    with Store.create(folder / ".mlops") as store:
        write_run(store, "books/one.ipynb")
        write_run(store, "two.ipynb", 3)
    (folder / "books").mkdir()
    cells = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "outputs": [], "execution_count": None,
         "source": f"\n# step {number + 5}\nframe_{number + 5} = load({number + 5})"}
        for number in range(5)
    ]  # fmt: skip
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "books" / "one.ipynb").write_text(json.dumps(book))
    return folder


def rows(lab: Lab, **words: Any) -> dict[str, Any]:
    status, answer = lab.ask(API + "cell-runs", **{"path": "served/books/one.ipynb", **words})
    assert status == 200, answer
    return answer


def test_a_notebooks_cell_runs_come_newest_first_in_pieces_that_keep_their_numbers(lab: Lab, project: Path) -> None:
    first = rows(lab, limit=5)
    assert [row["position"] for row in first["rows"]] == [11, 10, 9, 8, 7]
    assert (first["total"], first["next"]) == (12, 7)
    rest = rows(lab, before=first["next"])
    assert [row["position"] for row in rest["rows"]] == [6, 5, 4, 3, 2, 1, 0]
    assert rest["next"] is None
    row = rest["rows"][-2]
    assert (row["title"], row["lines"], row["made"], row["metrics"]) == ("# step 1", 3, ["frame_1"], {"auc": 0.1})
    assert (row["trigger"], row["status"], row["marks"]) == ("session", "done", ["redacted"])
    assert rest["rows"][-1]["marks"] == ["unseeded"]
    assert rest["rows"][-1]["error"] == "ValueError: no"
    assert "blind" in rest["rows"][-3]["marks"]


def test_the_last_run_of_each_cell_is_given(lab: Lab, project: Path) -> None:
    status, answer = lab.ask(API + "cells", path="served/books/one.ipynb")
    assert status == 200
    assert [(row["cell"], row["count"]) for row in answer["rows"]] == [
        ("cell-2", 8), ("cell-3", 9), ("cell-4", 10), ("cell-0", 11), ("cell-1", 12)
    ]  # fmt: skip
    assert answer["mark"] == rows(lab)["mark"]


def test_cell_runs_are_searched_and_filtered(lab: Lab, project: Path) -> None:
    assert [row["position"] for row in rows(lab, status="error")["rows"]] == [9, 6, 3, 0]
    assert [row["position"] for row in rows(lab, search="FRAME_1 load")["rows"]] == [11, 10, 1]
    assert rows(lab, search="frame_1", status="interrupted,running")["rows"] == []
    piece = rows(lab, status="error", limit=1)
    assert [row["position"] for row in piece["rows"]] == [9]
    assert [row["position"] for row in rows(lab, status="error", before=piece["next"])["rows"]] == [6, 3, 0]
    assert rows(lab, cell="cell-4")["total"] == 2
    assert rows(lab, of="project")["total"] == 15


def test_a_search_sees_what_came_since_the_last_one(lab: Lab, project: Path) -> None:
    folder = lab.root / "growing"
    with Store.create(folder / ".mlops") as store:
        _, names = write_run(store, "a.ipynb", 2)

        def found(text: str) -> int:
            status, answer = lab.ask(API + "cell-runs", path="growing/a.ipynb", search=text)
            assert status == 200, answer
            return len(answer["rows"])

        assert (found("load"), found("late_metric")) == (2, 0)
        store.append(CellLogged(run=store.cell_run(names[0]).started.run, cell_run=names[0], what="metric",
                                key="late_metric", value=1))  # fmt: skip
        write_run(store, "a.ipynb", 1)
        assert (found("load"), found("late_metric")) == (3, 1)


def test_a_cell_run_is_given_whole(lab: Lab, project: Path) -> None:
    name = rows(lab)["rows"][-1]["id"]
    status, cell = lab.ask(API + f"cell-runs/{name}", path="served")
    assert status == 200
    assert cell["source"] == "\n# step 0\nframe_0 = load(0)"
    assert cell["error"] == "ValueError: no\nmore"
    assert cell["randomness"] == {"numpy": "unseeded"}
    assert cell["logged"] == [{"what": "metric", "key": "auc", "values": [0.5, 0.0]}]
    assert [one["name"] for one in cell["outputs"]] == ["frame_0"]
    assert cell["run"]["parameters"] == {"rate": "~nan"}


def test_runs_are_listed_with_what_they_were_given(lab: Lab, project: Path) -> None:
    status, first = lab.ask(API + "runs", path="served", limit=1)
    assert status == 200
    assert [run["notebook"] for run in first["runs"]] == ["two.ipynb"]
    _, second = lab.ask(API + "runs", path="served", skip=first["next"])
    assert [(run["notebook"], run["status"], run["user"]) for run in second["runs"]] == [
        ("books/one.ipynb", "done", "alice")
    ]
    assert second["next"] is None
    status, run = lab.ask(API + f"runs/{second['runs'][0]['id']}", path="served")
    assert (status, run) == (200, second["runs"][0])


def test_models_are_given_with_their_aliases_gates_and_evidence(lab: Lab) -> None:
    features, labels = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    with Store.create(lab.root / "shop" / ".mlops") as store:
        registry = LocalRegistry(store, user="alice")
        model = LogisticRegression().fit(features, labels)
        registry.register(model, "churn", metrics={"auc": 0.8}, data=features)
        registry.promote("churn/1", "staging", gates=["auc>=0.7"], reason="good enough", tickets=["ABC-1"])
        registry.register(LogisticRegression(C=0.1).fit(features, labels), "churn", metrics={"auc": 0.6})
        with pytest.raises(GateRefused):
            registry.promote("churn/2", "staging", gates=["auc>=0.7"])
    status, listed = lab.ask(API + "models", path="shop")
    assert status == 200
    assert [(one["name"], one["latest"], one["aliases"]) for one in listed["models"]] == [("churn", 2, {"staging": 1})]
    status, model = lab.ask(API + "models/churn", path="shop")
    assert [(one["version"], one["aliases"], one["metrics"]) for one in model["versions"]] == [
        (2, [], {"auc": 0.6}), (1, ["staging"], {"auc": 0.8}),
    ]  # fmt: skip
    (alias,) = model["aliases"]
    assert (alias["alias"], alias["version"]) == ("staging", 1)
    refused, moved = alias["steps"]
    assert (refused["refused"], refused["new"], refused["old"]) == (True, 2, 1)
    (answer,) = [one for one in refused["checks"] if not one["passed"]]
    assert answer["evidence"]["found"] == "0.6"
    assert (moved["by"], moved["reason"], moved["tickets"]) == ("alice", "good enough", [{"id": "ABC-1"}])
    assert {one["check"]: one["passed"] for one in model["versions"][0]["checks"]} == {answer["check"]: False}
    assert lab.ask(API + "models/unknown", path="shop")[0] == 404


def test_a_notebook_is_held_against_what_is_on_record(lab: Lab, project: Path) -> None:
    status, standing = lab.ask(API + "standing", path="served/books/one.ipynb")
    assert status == 200
    assert (standing["reproduces"], standing["cells"], standing["ran"]) == ("no", 5, 5)
    failed = {one["id"] for one in standing["findings"] if one["kind"] == "failed"}
    assert failed == {"cell-4"}
    status, refusal = lab.ask(API + "standing", path="served/books/none.ipynb")
    assert (status, refusal["kind"]) == (409, "NotebookUnreadable")


# -- runs, and what is compared --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweeping(lab: Lab) -> list[str]:
    """A sweep of three runs, a session of another notebook that ran a cell of this one, and one that did not."""
    folder = lab.root / "sweeping"
    with Store.create(folder / ".mlops") as store:
        whole = store.append(RunStarted(trigger="sweep", notebook="train.ipynb", parameters={"key": "k"}))
        names = [whole]
        for depth in (3, 5, 7):
            around = store.append(Environment(python="3.11", packages=[Package(name="numpy", version=f"{depth}.0")]))
            run = store.append(
                RunStarted(
                    trigger="papermill", notebook="train.ipynb", parent=whole, parameters={"depth": depth, "seed": 1}
                )
            )
            cell = store.append(
                CellStarted(run=run, notebook="train.ipynb", cell="fit", count=1, source=f"depth = {depth}\nfit()",
                            environment=around)
            )  # fmt: skip
            for value in (0.1, depth / 10):
                store.append(CellLogged(run=run, cell_run=cell, what="metric", key="auc", value=value))
            store.append(CellLogged(run=run, cell_run=cell, what="param", key="rate", value=0.5))
            data = b"\x89PNG\r\n\x1a\n" + bytes([depth])
            shown = [
                Artifact(
                    name="display 1", kind="display", type="image/png", digest=store.put(data), size=9, stored=True
                ),
                Artifact(name="display 2", kind="display", type="image/png", digest=store.put(b"<svg>"), stored=True),
            ]
            store.append(CellEnded(cell_run=cell, status="done", displays=shown))
            left = [Artifact(name="data.csv", kind="file"), Artifact(name=f"out/{depth}.ipynb", kind="file")]
            store.append(RunEnded(run=run, status="done", seconds=1.0, outputs=left))
            names.append(run)
        guest = store.append(RunStarted(trigger="session", notebook="other.ipynb"))
        cell = store.append(CellStarted(run=guest, notebook="train.ipynb", cell="x", source="1", count=1))
        store.append(CellEnded(cell_run=cell, status="done"))
        names.append(guest)
        store.append(RunStarted(trigger="session", notebook="third.ipynb"))
    return names


def test_runs_of_a_notebook_come_with_what_they_logged_and_left(lab: Lab, sweeping: list[str]) -> None:
    status, answer = lab.ask(API + "runs", path="sweeping", notebook="train.ipynb")
    assert status == 200
    assert [run["id"] for run in answer["runs"]] == sweeping[::-1]
    assert (answer["total"], answer["next"]) == (5, None)
    best = answer["runs"][1]
    assert (best["metrics"], best["logged"], best["unread"]) == ({"auc": 0.7}, {"rate": 0.5}, 0)
    assert (best["parent"], best["result"]) == (sweeping[0], "out/7.ipynb")
    assert lab.ask(API + "runs", path="sweeping")[1]["total"] == 6
    pieces = [lab.ask(API + "runs", path="sweeping", skip=skip, limit=2)[1] for skip in (0, 2, 4)]
    assert [len(piece["runs"]) for piece in pieces] == [2, 2, 2]
    assert [piece["next"] for piece in pieces] == [2, 4, None]


def test_runs_are_compared_side_by_side_with_the_first(lab: Lab, sweeping: list[str]) -> None:
    status, answer = lab.ask(API + "compare", path="sweeping", runs=",".join(sweeping[1:4]))
    assert status == 200, answer
    aspects = {(one["what"], one["name"]): one["values"] for one in answer["aspects"]}
    assert aspects == {
        ("parameter", "depth"): [3, 5, 7], ("metric", "auc"): [0.3, 0.5, 0.7],
        ("package", "numpy"): ["3.0", "5.0", "7.0"],
    }  # fmt: skip
    (cell,) = answer["cells"]
    assert cell["differs"][0] == []
    assert "source" in cell["differs"][1]
    assert [line for line in cell["diffs"][1] if line[0] in "+-"] == ["-depth = 3", "+depth = 5"]
    # an image is given only where it is what its type says
    assert [(one["images"], len(one["plots"])) for one in answer["shown"]] == [(2, 1)] * 3
    assert base64.b64decode(answer["shown"][2]["plots"][0]["data"]).endswith(b"\n\x07")
    assert answer["unknown"] == []
    _, answer = lab.ask(API + "compare", path="sweeping", runs=f"{sweeping[1]},{sweeping[4]}")
    assert answer["unknown"] == [f"the environment of {short(sweeping[4])} is not on record"]
    assert ("parameter", "depth", [3, None]) in [(one["what"], one["name"], one["values"]) for one in answer["aspects"]]


@pytest.mark.parametrize(("count", "status"), [(0, 400), (1, 400), (9, 400)])
def test_as_many_runs_are_compared_as_stand_side_by_side(
    lab: Lab, sweeping: list[str], count: int, status: int
) -> None:
    names = [f"blake3:{number:064x}" for number in range(count)]
    assert lab.ask(API + "compare", path="sweeping", runs=",".join(names))[0] == status


def test_a_run_that_is_not_on_record_is_not_compared(lab: Lab, sweeping: list[str]) -> None:
    assert lab.ask(API + "compare", path="sweeping", runs=f"{sweeping[1]},blake3:{'0' * 64}")[0] == 404
    assert lab.ask(API + "compare", path="sweeping", runs=f"{sweeping[1]},nothing")[0] == 400


def test_of_a_run_that_logged_very_many_values_the_last_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    with Store.create(tmp_path / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
        store.append(CellLogged(run=run, what="metric", key="first", value=1))
        for step in range(20):
            store.append(CellLogged(run=run, what="metric", key="loss", value=step))
        found = store.logged_in([run], most=5)[run]
        assert (found.metrics, found.unread) == ({"loss": 19}, 16)
        assert store.logged_in([run])[run].metrics == {"first": 1, "loss": 19}


# -- lineage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chained(lab: Lab) -> list[str]:
    """Ten cell runs, each of which reads what the one before made; a file at their beginning, a model at their end."""
    folder = lab.root / "chained"
    with Store.create(folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="long.ipynb"))
        names: list[Any] = []
        for number in range(10):
            # two lines that say the same are one environment
            around = store.append(Environment(python="3.11.2", packages=[Package(name="numpy", version="2")]))
            cell = store.append(
                CellStarted(
                    run=run, notebook="long.ipynb", cell=f"c{number}", count=number + 1,
                    source=f"v{number} = f()\nmore", environment=around,
                    tickets=[Ticket(id="ABC-1")] if number == 9 else [],
                )
            )  # fmt: skip
            read = (
                [Artifact(name=f"v{number - 1}", kind="variable", digest=digest_of(b"%d" % number), made=names[-1])]
                if names
                else []
            )
            store.append(
                CellEnded(
                    cell_run=cell, status="done", after=names[-1:], inputs=read,
                    files_read=[] if names else [Artifact(name="in.csv", kind="file", digest=digest_of(b"in"))],
                    outputs=[
                        Artifact(name=f"v{number}", kind="variable", type="int", digest=digest_of(b"%d" % (number + 1)))
                    ],
                    gaps=[Gap(subject="socket", reason="unseen")] if number == 9 else [],
                )
            )  # fmt: skip
            names.append(cell)
        store.append(CellLogged(run=run, cell_run=names[9], what="metric", key="auc", value=float("nan")))
        model = LogisticRegression().fit(np.arange(20.0).reshape(-1, 1), np.arange(20) % 2)
        LocalRegistry(store, user="alice").register(model, "late", context=RunContext(run=run, cell_run=names[9]))
    return names


def traced(lab: Lab, of: str, **words: Any) -> dict[str, Any]:
    status, answer = lab.ask(API + "lineage", path="chained/long.ipynb", of=of, **words)
    assert status == 200, answer
    nodes = {node["id"] for node in answer["nodes"]}
    assert answer["root"] in nodes
    assert {edge[side] for edge in answer["edges"] for side in ("source", "target")} <= nodes
    return answer


@pytest.mark.parametrize(
    ("of", "kind"), [("v9", "value"), ("auc", "metric"), ("models:/late/1", "model"), ("", "cell")]
)
def test_a_lineage_leads_back_to_files_environment_ticket_and_what_is_not_known(
    lab: Lab, chained: list[str], of: str, kind: str
) -> None:
    answer = traced(lab, of or chained[9])
    root = next(node for node in answer["nodes"] if node["id"] == answer["root"])
    assert root["kind"] == kind
    kinds = [node["kind"] for node in answer["nodes"]]
    assert [kinds.count(one) for one in ("cell", "file", "environment", "ticket", "gap")] == [10, 1, 1, 1, 1]
    assert kinds.count("value") == (10 if of == "v9" else 9)
    assert (answer["cell_runs"], answer["beyond"], answer["outside"]) == (10, 0, False)
    # a value stands between the cell run that made it and the one that read it
    passed = next(node["id"] for node in answer["nodes"] if node["label"] == "v3")
    edges = {(edge["source"], edge["target"]) for edge in answer["edges"]}
    assert {(chained[3], passed), (passed, chained[4])} <= edges
    assert (chained[3], chained[4]) not in edges


def test_a_lineage_is_the_same_as_the_commands(lab: Lab, chained: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "lineage", "v9", "--json"], cwd=lab.root / "chained",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    told = told.get("data", told)
    cells = {node["id"] for node in traced(lab, "v9")["nodes"] if node["kind"] == "cell"}
    assert {node["id"] for node in told["nodes"] if node["kind"] == "cell"} == cells == set(chained)


def test_what_is_far_back_is_named_and_leads_on(lab: Lab, chained: list[str]) -> None:
    answer = traced(lab, "v9", limit=4)
    assert (answer["cell_runs"], answer["beyond"]) == (4, 1)
    (far,) = [node for node in answer["nodes"] if node["kind"] == "beyond"]
    assert far["cell_run"] == chained[5]
    assert traced(lab, far["cell_run"])["cell_runs"] == 6


def test_a_file_from_outside_is_followed_to_who_read_it(lab: Lab, chained: list[str]) -> None:
    answer = traced(lab, "in.csv")
    assert answer["outside"]
    assert [node["cell_run"] for node in answer["nodes"] if node["kind"] == "cell"] == [chained[0]]


def test_what_is_unknown_or_not_asked_is_refused(lab: Lab, chained: list[str]) -> None:
    assert lab.ask(API + "lineage", path="chained", of="never made")[0] == 404
    assert lab.ask(API + "lineage", path="chained", of=" ")[0] == 400
    assert lab.ask(API + "lineage", path="chained", of="v9", limit="many")[0] == 400


def test_a_lineage_that_goes_round_in_a_ring_ends(lab: Lab) -> None:
    with Store.create(lab.root / "ring" / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
        one, two = (store.append(CellStarted(run=run, notebook="a.ipynb", source=name)) for name in "ab")
        for cell, other, name in ((one, two, "x"), (two, one, "y")):
            read = [Artifact(name=name, kind="variable", digest=digest_of(b"r"), made=other)]
            store.append(CellEnded(cell_run=cell, status="done", after=[other, cell, digest_of(b"lost")], inputs=read))
    status, answer = lab.ask(API + "lineage", path="ring", of=one)
    assert status == 200
    assert sorted(node["kind"] for node in answer["nodes"]) == ["cell", "cell", "missing", "value", "value"]


def test_thousands_of_files_of_one_cell_are_a_few_nodes_and_a_number(lab: Lab) -> None:
    with Store.create(lab.root / "files" / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
        cell = store.append(CellStarted(run=run, notebook="a.ipynb", source="read()"))
        read = [Artifact(name=f"{number}.csv", kind="file", digest=digest_of(b"%d" % number)) for number in range(2000)]
        store.append(CellEnded(cell_run=cell, status="done", files_read=read))
    _, answer = lab.ask(API + "lineage", path="files", of=cell)
    assert len(answer["nodes"]) < 50
    assert [node["label"] for node in answer["nodes"] if node["kind"] == "more"] == ["1970 more"]


def test_what_can_be_traced_is_offered_by_the_version_that_is_meant(lab: Lab, chained: list[str]) -> None:
    status, answer = lab.ask(API + "names", path="chained/long.ipynb")
    assert status == 200
    kinds = {(one["kind"], one["name"]) for one in answer["names"]}
    assert {("model", "late/1"), ("metric", "auc"), ("variable", "v9"), ("variable", "v0"), ("file", "in.csv")} <= kinds
    for one in answer["names"]:
        assert traced(lab, one["of"])["nodes"]
    assert lab.ask(API + "names", path="chained/other.ipynb")[1]["names"] == [answer["names"][0]]


# -- who may ask -----------------------------------------------------------------------------------------------------


_OTHERS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def methods(handler: type) -> list[str]:
    """What a route takes."""
    from tornado.web import RequestHandler

    return [one for one in _OTHERS if getattr(handler, one.lower()) is not getattr(RequestHandler, one.lower())]


def routes(lab: Lab) -> list[tuple[str, type]]:
    """An address for every route there is, and what answers there."""
    from jupyter_mlops.server.routes import API as PREFIX
    from jupyter_mlops.server.routes import ROUTES

    row = rows(lab)["rows"][0]
    samples = {"cell-runs": row["id"], "runs": row["run"], "models": "churn", "churn": "1", "jobs": "0" * 32}
    found = []
    for pattern, handler in ROUTES.items():
        parts: list[str] = []
        for part in pattern.split("/"):
            parts.append(samples[parts[-1]] if part.startswith("(") else part)
        found.append((f"{PREFIX}/{'/'.join(parts)}", handler))
    assert len({address for address, _ in found}) == len(ROUTES)
    return found


def addresses(lab: Lab) -> list[str]:
    """An address for every route that reads."""
    return [address for address, handler in routes(lab) if "GET" in methods(handler)]


def body_for(handler: Any, lab: Lab) -> dict[str, Any]:
    """What a route that acts takes, where all is well."""
    given = {
        "version": 1, "alias": "production", "what": rows(lab)["rows"][0]["id"], "folder": "served/new",
        "output": "served/new.ipynb", "parameters": {}, "notebook": True,
    }  # fmt: skip
    fields = msgspec.structs.fields(handler.SENT)
    return {one.name: given[one.name] for one in fields if one.required or one.name in given}


def words_for(lab: Lab, address: str) -> dict[str, str]:
    """What a route wants to know besides the notebook."""
    some = rows(lab)["rows"]
    runs = [one["id"] for one in lab.ask(API + "runs", path="served")[1]["runs"]]
    wanted = {
        "difference": {"old": some[1]["id"], "new": some[0]["id"]}, "compare": {"runs": ",".join(runs)},
        "lineage": {"of": "frame_1"},
    }  # fmt: skip
    return {"path": "served/books/one.ipynb", **wanted.get(address.removeprefix(API), {})}


def test_no_route_answers_whoever_is_not_known_or_forges_a_request(lab: Lab, project: Path) -> None:
    cookie = lab.session_cookie()
    for address in addresses(lab):
        words = words_for(lab, address)
        known = lab.ask(address, **words)[0]
        missing = "churn" in address or address.endswith("0" * 32)
        assert known == (404 if missing else 200), address
        assert lab.ask(address, token="", **words)[0] == 403, address
        assert lab.ask(address, token="wrong", **words)[0] == 403, address
        # A browser that has logged in may ask from the server's own pages, and from no other site's.
        assert lab.ask(address, token="", headers={"Cookie": cookie}, **words)[0] == known, address
        foreign = {"Cookie": cookie, "Origin": "http://evil.example"}
        assert lab.ask(address, token="", headers=foreign, **words)[0] in (403, 404), address
        if not missing:
            assert "kind" not in lab.ask(address, token="", headers=foreign, **words)[1]
        assert lab.ask(address, headers={"Host": "evil.example"}, **words)[0] in (403, 404), address
    for address, handler in routes(lab):
        for method in set(_OTHERS[1:]) - set(methods(handler)):
            words = {"path": "served/books/one.ipynb"}
            status = lab.ask(address, method=method, body=b"x", headers={"Content-Type": "text/plain"}, **words)[0]
            assert status == 405, (address, method)
            forged = {"Content-Type": "text/plain", "Cookie": cookie}
            status = lab.ask(address, method=method, body=b"x", token="", headers=forged, **words)[0]
            assert status == 403, (address, method)


def test_nothing_is_done_for_whoever_is_not_known_or_forges_a_request(lab: Lab, project: Path) -> None:
    cookie = lab.session_cookie()
    xsrf = dict(part.split("=", 1) for part in cookie.split("; "))["_xsrf"]
    mark = rows(lab)["mark"]
    acts = [(address, handler) for address, handler in routes(lab) if "POST" in methods(handler)]
    assert len(acts) >= 6
    for address, handler in acts:
        body, words = body_for(handler, lab), {"path": "served/books/one.ipynb"}

        def asked(
            sent: Any = body, address: str = address, words: dict[str, str] = words, **options: Any
        ) -> tuple[int, Any]:
            return lab.send(address, sent, **{**words, **options})

        for forged in (
            {"token": ""}, {"token": "wrong"}, {"token": "", "headers": {"Cookie": cookie}},
            {"token": "", "headers": {"Cookie": cookie, "X-XSRFToken": "wrong"}},
            {"headers": {"Host": "evil.example"}},
        ):  # fmt: skip
            status, answer = asked(**forged)
            assert status == 403, (address, forged, answer)
        foreign = {"Cookie": cookie, "X-XSRFToken": xsrf, "Origin": "http://evil.example"}
        status, answer = asked(token="", headers=foreign)
        assert status in (403, 404), address
        assert "kind" not in answer
        assert asked(headers={"Content-Type": "multipart/form-data; boundary=x"})[0] in (400, 415), address
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
            status, answer = asked(headers={"Content-Type": kind})
            assert (status, answer["kind"]) == (415, "BodyUnknown"), (address, kind)
        status, answer = asked({**body, "reason": "x" * 70_000})
        assert (status, answer["kind"]) == (413, "BodyTooLarge"), address
        # as what it is not, with more than is taken, and as somebody else
        for bad in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 20_000, {}, {**body, "by": "root"}, {**body, "x": 1}):
            status, answer = asked(bad)
            assert (status, answer["kind"]) == (400, "BodyRefused"), (address, bad)
            assert answer["next"].startswith("an object of "), address
        for name, value in body.items():
            for other in (None, [value], {"a": value}, "x" * 5000 if isinstance(value, str) else f"{value}"):
                assert asked({**body, name: other})[0] == 400, (address, name)
        for path in ("../secret/a.ipynb", "served/../../secret", "served/.mlops/a.ipynb", "served\0/x", "a/" * 3000):
            status, answer = asked(path=path)
            gone = (404, 409) if "\0" in path else (403, 404)  # as a place inside, where there is nothing
            assert status in (403, *gone), (address, path, answer)
    assert rows(lab)["mark"] == mark
    assert not (project / "new").exists()
    assert not (project / "new.ipynb").exists()


def test_a_page_that_has_logged_in_may_act_with_its_own_cookie_and_token(lab: Lab, project: Path) -> None:
    cookie = lab.session_cookie()
    xsrf = dict(part.split("=", 1) for part in cookie.split("; "))["_xsrf"]
    own = {"Cookie": cookie, "X-XSRFToken": xsrf, "Origin": lab.base.removesuffix("/user/alice/")}
    status, answer = lab.send(API + "models/churn/check", {"version": 1}, token="", headers=own, path="served")
    assert (status, answer["kind"]) == (404, "ModelMissing")


def test_every_route_is_documented_with_what_it_takes() -> None:
    from jupyter_mlops.server.routes import ROUTES

    page = (Path(__file__).parents[1] / "docs" / "jupyterlab.md").read_text()
    for pattern, handler in ROUTES.items():
        head, _, tail = pattern.partition("/(")
        assert f"| `{head}" + ("/" if tail else "?path=") in page, pattern
        shown = re.sub(r"\(\[A-Za-z0-9._-\]\{1,100\}\)", "NAME", pattern).replace("([0-9]{1,9})", "VERSION")
        shown = re.sub(r"\(\[a-z0-9-\]\{1,20\}:.*?\)", "DIGEST", shown).replace("([0-9a-f]{32})", "ID")
        assert "(" not in shown, pattern
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{shown}?path=")]
        taken = re.findall(r"`(GET|POST|DELETE)`", row.split("|")[2])
        assert taken == methods(handler), row
        for field in msgspec.structs.fields(handler.SENT) if hasattr(handler, "SENT") else ():
            assert f"`{field.encode_name}`" in row, (row, field.encode_name)


@pytest.mark.parametrize(
    "path",
    ["../secret/a.ipynb", "served/../../secret", "/etc/passwd/../../..", "served/.mlops/a.ipynb", "out/a.ipynb",
     "..\\secret", "served\0/x.ipynb", "a/" * 3000],
)  # fmt: skip
def test_no_path_leads_out_of_the_servers_folder_or_into_what_is_hidden(lab: Lab, project: Path, path: str) -> None:
    secret = lab.root.parent / "secret"
    if not secret.exists():
        with Store.create(secret / ".mlops") as store:
            write_run(store, "a.ipynb", 1)
        (lab.root / "out").symlink_to(secret)
    for address in ("overview", "cell-runs", "runs", "models", "standing", "names", "lineage", "compare"):
        status, answer = lab.ask(API + address, path=path, of="frame_1", runs="blake3:" + "0" * 64)
        assert status in (403, 404), (address, answer)
        assert set(answer) == {"kind", "message"} | ({"cause"} & set(answer)) | ({"next"} & set(answer))


def test_a_record_above_the_servers_folder_is_not_read_and_the_answer_says_why(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from jupyter_mlops.server.routes import Outside, Projects

    (tmp_path / "below").mkdir()
    Store.create(tmp_path / ".mlops").close()
    contents = SimpleNamespace(root_dir=str(tmp_path / "below"), allow_hidden=False)
    with pytest.raises(Outside, match="start Jupyter in the folder that holds"):
        Projects(contents, above=False).reading("")
    allowed = Projects(contents, above=True)
    assert allowed.reading("").overview("").root == ".."
    allowed.close()


@pytest.mark.parametrize("words", [{"limit": "-1"}, {"before": "x"}, {"status": "lost"}, {"limit": "1e9"}])
def test_what_is_no_number_or_state_is_refused(lab: Lab, project: Path, words: dict[str, str]) -> None:
    assert lab.ask(API + "cell-runs", path="served/books/one.ipynb", **words)[0] == 400


def test_a_name_that_is_no_digest_leads_nowhere(lab: Lab, project: Path) -> None:
    for name in ("blake3:../../etc", "1", "blake3:" + "0" * 64, "%2e%2e%2fformat"):
        assert lab.ask(API + f"cell-runs/{name}", path="served")[0] == 404
    assert lab.ask(API + "cell-runs", path="served", run="nothing")[0] == 400


def test_the_server_starts_without_a_word_of_warning_about_us(lab: Lab, project: Path) -> None:
    start, running, _ = lab.log.partition("is running at")
    assert running
    said = [line for line in start.splitlines() if "mlops" in line]
    assert any("extension was successfully loaded" in line for line in said)
    assert not [line for line in said if "Warning" in line or line.startswith(("[W", "[E"))]


# -- stores that are broken, locked, gone ----------------------------------------------------------------------------


def test_where_nothing_is_on_record_the_answer_says_what_to_do(lab: Lab) -> None:
    (lab.root / "empty").mkdir(exist_ok=True)
    status, answer = lab.ask(API + "overview", path="empty/new.ipynb")
    assert (status, answer["kind"]) == (404, "ProjectMissing")
    assert "%load_ext jupyter_mlops" in answer["next"]
    assert not (lab.root / "empty" / ".mlops").exists()


def test_a_store_of_a_later_format_is_refused_by_name(lab: Lab) -> None:
    folder = lab.root / "later" / ".mlops"
    folder.mkdir(parents=True)
    (folder / "format").write_text(json.dumps({"format": 99, "id": "0" * 32}))
    status, answer = lab.ask(API + "overview", path="later")
    assert (status, answer["kind"]) == (409, "StoreFormat")
    assert "pip install --upgrade" in answer["next"]
    (folder / "format").write_text("{")
    assert lab.ask(API + "overview", path="later")[1]["kind"] == "StoreFormat"


def test_a_store_that_is_removed_while_it_is_open_is_missed_and_a_new_one_is_found(lab: Lab) -> None:
    folder = lab.root / "removed"
    with Store.create(folder / ".mlops") as store:
        write_run(store, "a.ipynb", 2)
    assert lab.ask(API + "cell-runs", path="removed/a.ipynb")[1]["total"] == 2
    shutil.rmtree(folder / ".mlops")
    assert lab.ask(API + "cell-runs", path="removed/a.ipynb")[1]["kind"] == "ProjectMissing"
    with Store.create(folder / ".mlops") as store:
        write_run(store, "a.ipynb", 1)
    assert lab.ask(API + "cell-runs", path="removed/a.ipynb")[1]["total"] == 1


def test_an_index_or_journal_full_of_rubbish_is_answered_and_the_rest_is_read(lab: Lab) -> None:
    folder = lab.root / "rubbish" / ".mlops"
    with Store.create(folder) as store:
        write_run(store, "a.ipynb", 2)
    (folder / "index.sqlite").write_bytes(b"\0" * 5000)
    (folder / "journal" / "bad.jsonl").write_bytes(os.urandom(5000))
    status, answer = lab.ask(API + "cell-runs", path="rubbish/a.ipynb")
    assert (status, answer["total"]) == (200, 2)
    said = lab.ask(API + "overview", path="rubbish")[1]["problems"]
    assert said[0].startswith("journal/bad.jsonl is damaged after byte 0, and what follows there is not read")
    assert said[1:] == ["mlops fsck says more of it"]
    (folder / "journal" / "torn.jsonl").write_bytes(b'{"a": ')  # as a writer that was killed leaves it
    for number in range(5):
        (folder / "journal" / f"worse{number}.jsonl").write_bytes(b"{}\n")
    said = lab.ask(API + "overview", path="rubbish")[1]["problems"]
    assert said[3:] == ["3 more files are damaged", "mlops fsck says more of it"]
    assert lab.ask(API + "cell-runs", path="rubbish/a.ipynb")[1]["total"] == 2


def test_cell_runs_that_are_damaged_are_left_out_and_said(lab: Lab) -> None:
    folder = lab.root / "flipped" / ".mlops"
    with Store.create(folder) as store:
        write_run(store, "a.ipynb", 3)
    assert lab.ask(API + "overview", path="flipped/a.ipynb")[1]["problems"] == []
    (journal,) = (folder / "journal").iterdir()
    journal.write_bytes(journal.read_bytes().replace(b"load(1)", b"load(7)"))
    found = lab.ask(API + "cell-runs", path="flipped/a.ipynb")[1]
    assert ([row["position"] for row in found["rows"]], found["total"]) == ([2, 0], 3)
    assert lab.ask(API + "overview", path="flipped/a.ipynb")[1]["problems"] == [
        "1 cell run is damaged and not shown", "mlops fsck says more of it",
    ]  # fmt: skip
    journal.write_bytes(journal.read_bytes().replace(b"load(7)", b"load(1)"))
    assert len(lab.ask(API + "cell-runs", path="flipped/a.ipynb")[1]["rows"]) == 3
    assert lab.ask(API + "overview", path="flipped/a.ipynb")[1]["problems"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads who holds a lock")
def test_a_store_that_somebody_holds_locked_keeps_nobody_else_waiting(lab: Lab) -> None:
    folder = lab.root / "locked" / ".mlops"
    with Store.create(folder) as store:
        write_run(store, "a.ipynb", 2)
        assert len(store.cell_runs()) == 2
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
         "print('held', flush=True)\nsys.stdin.read()", str(folder / "index.lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with socket.create_connection(("127.0.0.1", lab.port)) as slow:
            request = f"GET /user/alice/{API}cell-runs?path=locked/a.ipynb&token={lab.token} HTTP/1.0\r\n\r\n"
            slow.sendall(request.encode())
            for _ in range(20):  # the server goes on meanwhile
                assert lab.ask("api/contents")[0] == 200
            slow.settimeout(0)
            with pytest.raises(BlockingIOError):
                slow.recv(1)
            holder.communicate()
            slow.settimeout(120)
            answer = b""
            while piece := slow.recv(65536):
                answer += piece
        assert b"200 OK" in answer.partition(b"\r\n")[0]
    finally:
        if holder.poll() is None:
            holder.communicate()


def test_asking_writes_nothing_that_is_truth(lab: Lab, project: Path) -> None:
    def files() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() for path in sorted((project / ".mlops").rglob("*"))
            if path.is_file() and not path.name.startswith("index.")
        }  # fmt: skip

    before = files()
    for address in addresses(lab):
        lab.ask(address, **words_for(lab, address))
    assert files() == before
