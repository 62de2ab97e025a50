"""What pages have done over HTTP: models checked, promoted and rolled back, code and files written, and who did it."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from labs import Lab
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellStarted,
    CodeState,
    Environment,
    Package,
    RunStarted,
    digest_of,
)
from jupyter_mlops.registry import LocalRegistry
from jupyter_mlops.store import Store

API = "jupyter-mlops/api/"
GATES = '[tool.jupyter-mlops.gates]\nproduction = ["auc>=0.7", "not-pickle"]\n'


@pytest.fixture
def shop(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """A project with a model: versions 1 and 3 are good enough for production, 2 is not."""
    folder = lab.root / f"{request.node.name[:60]}"
    features, labels = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    with Store.create(folder / ".mlops") as store:
        registry = LocalRegistry(store, user="author")
        for rate, auc in ((1.0, 0.8), (0.1, 0.6), (0.5, 0.9)):
            registry.register(LogisticRegression(C=rate).fit(features, labels), "churn", metrics={"auc": auc})
    (folder / "pyproject.toml").write_text(GATES)
    return folder


def act(lab: Lab, shop: Path, verb: str, **body: Any) -> tuple[int, Any]:
    return lab.send(f"{API}models/churn/{verb}", body, path=shop.name)


def model(lab: Lab, shop: Path) -> dict[str, Any]:
    status, answer = lab.ask(API + "models/churn", path=shop.name)
    assert status == 200
    return answer


def me() -> str:
    return os.environ.get("JUPYTERHUB_USER") or getpass.getuser()


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_version_is_promoted_through_its_gates_and_rolled_back_and_the_server_says_who_did_it(
    lab: Lab, shop: Path
) -> None:
    assert act(lab, shop, "promote", version=1, alias="production", reason="first", tickets=["OPS-1"])[0] == 200
    status, refusal = act(lab, shop, "promote", version=2, alias="@production", reason="newer")
    assert (status, refusal["kind"]) == (409, "GateRefused")
    (failed,) = [one for one in refusal["checks"] if not one["passed"]]
    assert (failed["check"], failed["evidence"]["found"], failed["evidence"]["demanded"]) == (
        "auc>=0.7", "0.6", "auc >= 0.7",
    )  # fmt: skip
    assert refusal["message"]
    assert "promote" in refusal["next"]
    status, moved = act(lab, shop, "promote", version=3, alias="production", reason="better")
    assert (status, moved["version"], moved["old"], moved["by"]) == (200, 3, 1, me())
    assert {one["check"] for one in moved["checks"]} == {"auc>=0.7", "not-pickle"}
    status, moved = act(lab, shop, "rollback", alias="production", reason="wrong at night", tickets=["OPS-2", " "])
    assert (status, moved["version"], moved["old"]) == (200, 1, 3)
    (alias,) = model(lab, shop)["aliases"]
    assert [(one["refused"], one["new"], one["reason"]) for one in alias["steps"]] == [
        (False, 1, "wrong at night"), (False, 3, "better"), (True, 2, "newer"), (False, 1, "first"),
    ]  # fmt: skip
    assert {one["by"] for one in alias["steps"]} == {me()}
    assert [[ticket["id"] for ticket in one["tickets"]] for one in alias["steps"]] == [["OPS-2"], [], [], ["OPS-1"]]
    status, refusal = act(lab, shop, "rollback", alias="production")
    assert (status, refusal["kind"]) == (409, "NothingBefore")


def test_there_is_no_way_around_what_the_settings_demand_at_that_moment(lab: Lab, shop: Path) -> None:
    assert act(lab, shop, "promote", version=2, alias="production", gates=[])[0] == 409
    assert act(lab, shop, "promote", version=2, alias="production", gates=["auc>=0.1"])[0] == 409
    (shop / "pyproject.toml").write_text(GATES.replace("0.7", "0.5"))
    assert model(lab, shop)["policy"] == {"production": ["auc>=0.5", "not-pickle"]}
    assert act(lab, shop, "promote", version=2, alias="production")[0] == 200
    assert act(lab, shop, "promote", version=3, alias="production", gates=["auc>=0.99"])[0] == 409
    (shop / "pyproject.toml").write_text("[tool.jupyter-mlops]\nno-such-setting = 1\n")
    status, refusal = act(lab, shop, "promote", version=3, alias="production")
    assert (status, refusal["kind"]) == (409, "SettingsInvalid")
    assert "no-such-setting" in model(lab, shop)["unreadable"]
    (shop / "pyproject.toml").write_text(GATES.replace("auc>=0.7", "auc is good"))
    status, refusal = act(lab, shop, "promote", version=3, alias="production")
    assert (status, refusal["kind"]) == (400, "GateInvalid")
    assert [one["version"] for one in model(lab, shop)["aliases"]] == [2]


def test_what_the_settings_want_to_be_said_is_told_to_pages_and_held_against_what_they_send(
    lab: Lab, shop: Path
) -> None:

    def told() -> list[dict[str, Any]]:
        answers = (model(lab, shop), lab.ask(API + "models", path=shop.name)[1])
        return [{act: said for act, said in one["demands"].items() if said} for one in answers]

    assert told() == [{}, {}]
    demands = (
        '[tool.jupyter-mlops.demands]\nregister = ["ticket"]\napprove = ["reason"]\n'
        'promote = { "@production" = ["reason", "ticket"] }\nrollback = { "*" = ["reason"] }\n'
    )
    (shop / "pyproject.toml").write_text(GATES + demands)
    assert told() == [
        {"register": ["ticket"], "approve": ["reason"], "promote": {"production": ["reason", "ticket"]},
         "rollback": {"*": ["reason"]}}
    ] * 2  # fmt: skip
    for verb, body in (
        ("promote", {"version": 1, "alias": "production", "reason": "why"}),
        ("promote", {"version": 1, "alias": "@production", "reason": " ", "tickets": ["OPS-1"]}),
        ("approve", {"version": 1}), ("approve", {"version": 1, "withdraw": True}),
    ):  # fmt: skip
        status, refusal = act(lab, shop, verb, **body)
        assert (status, refusal["kind"]) == (409, "DemandUnmet"), (verb, refusal)
        assert "was given" in refusal["message"]
        assert "the project's settings demand" in refusal["cause"]
    for version in (1, 3):
        assert act(lab, shop, "promote", version=version, alias="production", reason="why", tickets=["A"])[0] == 200
    assert act(lab, shop, "rollback", alias="production", tickets=["A"])[0] == 409
    assert act(lab, shop, "rollback", alias="production", reason="wrong")[0] == 200
    (alias,) = model(lab, shop)["aliases"]
    assert [(one["refused"], one["lacking"]) for one in alias["steps"]] == [
        (False, []), (True, ["reason"]), (False, []), (False, []), (True, ["reason"]), (True, ["ticket"]),
    ]  # fmt: skip


def test_gates_are_asked_without_moving_anything(lab: Lab, shop: Path) -> None:
    status, answer = act(lab, shop, "check", version=2)
    assert (status, answer["passed"], answer["alias"]) == (200, False, "production")
    assert [(one["check"], one["passed"]) for one in answer["checks"]] == [("auc>=0.7", False), ("not-pickle", True)]
    assert act(lab, shop, "check", version=2, gates=["auc>=0.5"])[1]["passed"] is True
    found = model(lab, shop)
    assert found["aliases"] == []
    (second,) = [one for one in found["versions"] if one["version"] == 2]
    assert {one["check"]: (one["passed"], one["by"]) for one in second["checks"]} == {
        "auc>=0.7": (False, me()), "not-pickle": (True, me()), "auc>=0.5": (True, me()),
    }  # fmt: skip


def test_what_is_not_there_or_can_not_be_named_is_refused_in_words(lab: Lab, shop: Path) -> None:
    for body, status, kind in (
        ({"version": 9, "alias": "production"}, 404, "ModelMissing"),
        ({"version": 1, "alias": "../../x"}, 400, "NameInvalid"),
        ({"version": 1, "alias": "latest"}, 400, "NameInvalid"),
        ({"version": 0, "alias": "production"}, 400, "BodyRefused"),
        ({"version": 1, "alias": "production", "gates": ["x" * 201]}, 400, "BodyRefused"),
    ):  # fmt: skip
        found, refusal = act(lab, shop, "promote", **body)
        assert (found, refusal["kind"]) == (status, kind), refusal
        assert refusal["message"]
    assert lab.send(API + "models/con/promote", {"version": 1, "alias": "a"}, path=shop.name)[0] in (400, 404)
    assert model(lab, shop)["aliases"] == []


def test_a_gate_can_ask_for_the_approval_of_somebody_else(lab: Lab, shop: Path) -> None:
    (shop / "pyproject.toml").write_text(GATES.replace('"not-pickle"', '"approved"'))
    status, refusal = act(lab, shop, "promote", version=1, alias="production")
    assert status == 409
    (failed,) = [one for one in refusal["checks"] if not one["passed"]]
    assert (failed["evidence"]["found"], failed["evidence"]["demanded"]) == (
        "nobody else has approved it", "approved by somebody other than author",
    )  # fmt: skip
    status, answer = act(lab, shop, "approve", version=1, reason="looked at the residuals", tickets=["OPS-3"])
    assert (status, answer["by"]) == (200, me())
    (first,) = [one for one in model(lab, shop)["versions"] if one["version"] == 1]
    assert [(one["by"], one["reason"], one["withdrawn"]) for one in first["approvals"]] == [
        (me(), "looked at the residuals", False)
    ]
    assert act(lab, shop, "promote", version=1, alias="production")[0] == 200
    assert act(lab, shop, "promote", version=3, alias="production")[0] == 409  # it is not of that version
    assert act(lab, shop, "approve", version=1, withdraw=True)[0] == 200
    assert act(lab, shop, "check", version=1)[1]["passed"] is False


def test_secrets_in_a_reason_are_masked_before_anything_is_written(lab: Lab, shop: Path) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    assert act(lab, shop, "promote", version=1, alias="production", reason=f"token {secret}")[0] == 200
    assert act(lab, shop, "approve", version=1, reason=f"token {secret}", tickets=[secret])[0] == 200
    (alias,) = model(lab, shop)["aliases"]
    assert alias["steps"][0]["reason"].startswith("token ")
    found = [path for path in (shop / ".mlops").rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert found == []


def test_who_acts_is_the_servers_user_where_that_is_a_name() -> None:
    from jupyter_server.auth import User

    from jupyter_mlops.server.handling import Route

    def who(user: User | None) -> str:
        return Route.who(SimpleNamespace(current_user=user))  # type: ignore[arg-type]

    assert who(User("alice")) == "alice"
    assert who(User("3f" * 16)) == ""  # drawn at random for whoever has a token
    assert who(None) == ""


def test_a_card_is_markdown_in_which_nothing_recorded_is_more_than_text(lab: Lab) -> None:
    said = "<img src=x onerror=alert(1)> [x](javascript:alert(2)) `a` | b\n# head"
    features, labels = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    with Store.create(lab.root / "cards" / ".mlops") as store:
        LocalRegistry(store, user=said).register(
            LogisticRegression().fit(features, labels), "churn", metrics={said: 1.0}, data=features,
            description=said, tags={said: said},
        )  # fmt: skip
    status, card = lab.ask(API + "models/churn/1/card", path="cards")
    assert status == 200
    text = card["markdown"]
    assert text.startswith("# churn, version 1\n")
    for title in ("## Metrics", "## Takes and gives", "## Trained on", "## Gates", "## Not known"):
        assert f"\n{title}\n" in text
    assert text.count("\n# ") == 0
    assert "<img" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\]", "")
    nbconvert = pytest.importorskip("nbconvert.filters.markdown_mistune", reason="needs nbconvert")
    html = nbconvert.markdown2html_mistune(text)
    assert "<img" not in html
    assert "javascript:" not in html.replace("(javascript:alert", "")
    assert lab.ask(API + "models/churn/2/card", path="cards")[0] == 404


# -- what was run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flown(lab: Lab) -> tuple[Path, list[str]]:
    """A project in which a notebook was run: its folder, and its cell runs."""
    from jupyter_mlops.pipelines import run_notebook
    from jupyter_mlops.project import Project

    folder = lab.root / "flown"
    Store.create(folder / ".mlops").close()
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    sources = {
        "read": "text = open('rows.csv').read()", "count": "count = len(text.splitlines())",
        "draw": "import random\nnoise = random.random()", "idle": "unused = 1",
    }  # fmt: skip
    cells = [
        {"cell_type": "code", "id": name, "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for name, source in sources.items()
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "book.ipynb").write_text(json.dumps(book))
    project = Project(folder)
    result = run_notebook(folder / "book.ipynb", output=folder / "out.ipynb", project=project)
    runs = [run.id for run in project.store.cell_runs(run=result.run, newest_first=False)]
    project.store.close()
    return folder, runs


def test_code_and_files_are_written_into_a_new_folder_and_over_nothing(lab: Lab, flown: tuple[Path, list[str]]) -> None:
    folder, runs = flown

    def checkout(where: str) -> tuple[int, Any]:
        return lab.send(API + "checkout", {"what": runs[1], "folder": where}, path="flown/book.ipynb")

    status, done = checkout("flown/then")
    assert status == 200, done
    assert (done["folder"], done["notebook"]) == ("flown/then", "flown/then/book.ipynb")
    cells = json.loads((folder / "then" / "book.ipynb").read_text())["cells"]
    assert [cell["source"] for cell in cells] == ["text = open('rows.csv').read()", "count = len(text.splitlines())"]
    assert "rows.csv" in [one["name"] for one in done["missing"]] + [one["path"] for one in done["placed"]]
    (folder / "then" / "mine.txt").write_text("mine")
    status, refusal = checkout("flown/then")
    assert (status, refusal["kind"]) == (400, "FolderTaken")
    assert (folder / "then" / "mine.txt").read_text() == "mine"


OUTSIDE = ["../out", "flown/.mlops/x", "flown/.git/x", "flown/link/x", "flown/../../x", "a\\b", "~/../..", "flown/\0"]


@pytest.mark.parametrize("where", OUTSIDE)
def test_nothing_is_written_outside_of_the_servers_folder_or_into_a_store(
    lab: Lab, flown: tuple[Path, list[str]], where: str
) -> None:
    folder, runs = flown
    outside = lab.root.parent / "outside"
    outside.mkdir(exist_ok=True)
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to(outside)
    for verb, body in (("checkout", {"folder": where}), ("slice", {"output": f"{where}/s.ipynb"})):
        status, refusal = lab.send(API + verb, {"what": runs[1], **body}, path="flown/book.ipynb")
        assert (status, refusal["kind"]) == (403, "Outside"), verb
    assert list(outside.iterdir()) == []
    for path in (lab.root.parent / "out", lab.root / "x", folder / ".mlops" / "x", folder / ".git"):
        assert not path.exists()


def test_the_servers_own_folder_is_no_place_for_something_new(lab: Lab, flown: tuple[Path, list[str]]) -> None:
    for where in ("", "/", "//"):
        status, refusal = lab.send(API + "checkout", {"what": flown[1][1], "folder": where}, path="flown")
        assert (status, refusal["kind"]) == (403, "Outside")


def test_a_slice_is_written_from_a_cell_run_and_over_no_file(lab: Lab, flown: tuple[Path, list[str]]) -> None:
    folder, runs = flown

    def slice_(what: str, output: str, **more: Any) -> tuple[int, Any]:
        return lab.send(API + "slice", {"what": what, "output": output, **more}, path="flown/book.ipynb")

    status, done = slice_(runs[1], "flown/small.ipynb")
    assert (status, done["notebook"], done["cells"]) == (200, "flown/small.ipynb", 2), done
    sources = ["".join(cell["source"]) for cell in json.loads((folder / "small.ipynb").read_text())["cells"]]
    assert sources == ["text = open('rows.csv').read()", "count = len(text.splitlines())"]
    status, refusal = slice_(runs[1], "flown/small.ipynb")
    assert (status, refusal["kind"]) == (400, "OutputRefused")
    assert slice_(runs[1], "flown/book.ipynb")[0] == 400
    assert slice_(runs[1], "flown/small.py")[0] == 400
    status, refusal = slice_(runs[2], "flown/noise.ipynb")
    assert (status, refusal["kind"]) == (409, "SliceRefused")
    status, done = slice_(runs[2], "flown/noise.ipynb", allow_unseeded=True)
    assert (status, len(done["unseeded"])) == (200, 1)
    assert slice_("nothing", "flown/x.ipynb")[0] == 404


def test_two_cell_runs_are_told_apart(lab: Lab) -> None:
    with Store.create(lab.root / "two" / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb", user="alice"))
        names = []
        for number in range(2):
            world = store.append(
                Environment(python="3.11", packages=[Package(name="pandas", version=f"2.{number}")], cores=number)
            )
            cell = store.append(
                CellStarted(run=run, notebook="a.ipynb", cell="c", count=number + 1, environment=world,
                            source=f"x = {number}\ny = 1")
            )  # fmt: skip
            store.append(CellLogged(run=run, cell_run=cell, what="metric", key="auc", value=number / 2))
            made = [Artifact(name=name, kind="variable", digest=digest_of(f"{name}{number % 2}".encode()),
                             type="int") for name in ("x",)]  # fmt: skip
            store.append(CellEnded(cell_run=cell, status="done" if number else "error", outputs=made))
            names.append(cell)
    status, answer = lab.ask(API + "difference", path="two", old=names[0], new=names[1])
    assert status == 200
    told = [(one["what"], one["name"], one["old"], one["new"]) for one in answer["changes"] if one["what"] != "made"]
    assert told == [
        ("metric", "auc", 0.0, 0.5), ("status", "", "error", "done"),
    ]  # fmt: skip
    assert answer["source"][1:] == ["-x = 0", "+x = 1", " y = 1"]
    assert [(one["name"], one["what"]) for one in answer["values"]] == [("x", "made")]
    (changed,) = answer["environment"]["changed"]
    assert (changed["old"]["version"], changed["new"]["version"]) == ("2.0", "2.1")
    assert (answer["kind"], answer["same"], answer["old"]["count"]) == ("cell run", False, 1)
    assert lab.ask(API + "difference", path="two", old=names[0], new=names[0])[1]["same"] is True
    assert lab.ask(API + "difference", path="two", old=names[0], new=run)[0] == 400
    assert lab.ask(API + "difference", path="two", old=names[0], new="x")[0] == 400
    assert lab.ask(API + "difference", path="two", old=names[0], new=digest_of(b"none"))[0] == 404


def test_what_changed_since_a_run_is_told(lab: Lab) -> None:
    with Store.create(lab.root / "worlds" / ".mlops") as store:
        runs = []
        for number, notebook in enumerate(("a.ipynb", "a.ipynb", "b.ipynb")):
            run = store.append(RunStarted(trigger="session", notebook=notebook, user="alice"))
            world = store.append(
                Environment(
                    python=f"3.{11 + number}", variables={"MODE": f"{number}"},
                    packages=[Package(name="numpy", version="2"), Package(name=f"only{number}", version="1")],
                )
            )  # fmt: skip
            code = store.append(CodeState(commit=f"{number}" * 40, branch="main"))
            store.append(CellStarted(run=run, notebook=notebook, cell="c", source="pass", environment=world, code=code))
            runs.append(run)
    status, answer = lab.ask(API + "environment", path="worlds/a.ipynb", old=runs[0])
    assert status == 200
    assert answer["new"]["run"]["id"] == runs[1]  # the latest of this notebook
    changed = answer["difference"]
    assert [(one["name"], one["old"], one["new"]) for one in changed["facts"]] == [("python", "3.11", "3.12")]
    assert [one["name"] for one in (*changed["added"], *changed["removed"])] == ["only1", "only0"]
    assert [(one["name"], one["old"], one["new"]) for one in changed["variables"]] == [("MODE", "0", "1")]
    assert [(one["name"], one["old"][:1], one["new"][:1]) for one in answer["code"]] == [("commit", "0", "1")]
    status, answer = lab.ask(API + "environment", path="worlds/a.ipynb", old=runs[0], new=runs[2])
    assert answer["difference"]["facts"][0]["new"] == "3.13"
    assert lab.ask(API + "environment", path="worlds/a.ipynb")[1]["old"] is None
    status, refusal = lab.ask(API + "environment", path="worlds/none.ipynb", old=runs[0])
    assert (status, refusal["kind"]) == (404, "NotFound")


# -- whoever listens -------------------------------------------------------------------------------------------------


def test_what_is_done_is_told_to_whoever_listens_to_the_servers_events(
    lab: Lab, shop: Path, flown: tuple[Path, list[str]]
) -> None:
    import websocket

    from jupyter_mlops.server import events

    address = f"{lab.base.replace('http', 'ws', 1)}api/events/subscribe?token={lab.token}"
    listener = websocket.create_connection(address, timeout=120)
    try:
        act(lab, shop, "check", version=2)
        act(lab, shop, "promote", version=1, alias="production", reason="first", tickets=["OPS-1"])
        act(lab, shop, "promote", version=2, alias="production")
        act(lab, shop, "promote", version=3, alias="production")
        act(lab, shop, "rollback", alias="production")
        act(lab, shop, "approve", version=1)
        act(lab, shop, "approve", version=1, withdraw=True)
        _, runs = flown
        lab.send(API + "slice", {"what": runs[1], "output": "flown/told.ipynb"}, path="flown/book.ipynb")
        lab.send(API + "checkout", {"what": runs[1], "folder": "flown/told"}, path="flown/book.ipynb")
        told: list[dict[str, Any]] = []
        while len(told) < 9:
            one = json.loads(listener.recv())
            if "jupyter-mlops" in one["schema_id"]:
                told.append(one)
    finally:
        listener.close()
    assert {one["schema_id"] for one in told} == {events.schema_id("model"), events.schema_id("files")}
    assert [one["action"] for one in told] == [
        "checked", "promoted", "refused", "promoted", "rolled back", "approved", "withdrawn", "sliced", "checked out",
    ]  # fmt: skip
    assert {one["by"] for one in told} == {me()}
    checked, promoted, refused, _, back, *_ = told
    assert (checked["failed"], refused["failed"], refused["version"]) == (["auc>=0.7"], ["auc>=0.7"], 2)
    assert (promoted["project"], promoted["model"], promoted["alias"]) == (shop.name, "churn", "production")
    assert (promoted["reason"], promoted["tickets"]) == ("first", ["OPS-1"])
    assert (back["version"], back["old"]) == (1, 3)
    assert told[-1]["path"] == "flown/told"
    assert "could not tell" not in lab.log


def test_a_command_that_is_run_for_a_page_is_told_when_it_begins_and_when_it_is_over(lab: Lab) -> None:
    import websocket

    from jupyter_mlops.server import events

    folder = lab.root / "begun"
    folder.mkdir()
    address = f"{lab.base.replace('http', 'ws', 1)}api/events/subscribe?token={lab.token}"
    listener = websocket.create_connection(address, timeout=120)
    try:
        status, job = lab.send(API + "jobs/init", {"notebook": False}, path="begun")
        assert status == 200, job
        told: list[dict[str, Any]] = []
        while len(told) < 2:
            one = json.loads(listener.recv())
            if one["schema_id"] == events.schema_id("job") and one["job"] == job["id"]:
                told.append(one)
    finally:
        listener.close()
    assert [one["action"] for one in told] == ["started", "done"]
    assert {(one["verb"], one["path"], one["by"]) for one in told} == {("init", "begun", me())}


def test_every_verb_of_a_job_can_be_told() -> None:
    import yaml

    from jupyter_mlops.server import events
    from jupyter_mlops.server.jobs import OVER
    from jupyter_mlops.server.routes import ROUTES

    schema = yaml.safe_load((Path(events.__file__).parent / "job.yaml").read_text())["properties"]
    verbs = {handler.SENT.VERB for pattern, handler in ROUTES.items() if pattern.startswith("jobs/") and
             hasattr(handler, "SENT")}  # fmt: skip
    assert set(schema["verb"]["enum"]) == verbs
    assert set(schema["action"]["enum"]) == {"started", *OVER}


def test_every_schema_has_a_version_and_is_documented() -> None:
    import yaml

    from jupyter_mlops.server import events

    page = (Path(__file__).parents[1] / "docs" / "jupyterlab.md").read_text()
    folder = Path(events.__file__).parent
    assert set(events.SCHEMAS) == {path.stem for path in folder.glob("*.yaml")} != set()
    for name in events.SCHEMAS:
        schema = yaml.safe_load((folder / f"{name}.yaml").read_text())
        assert schema["$id"] == events.schema_id(name)
        assert schema["$id"].endswith(f"/v{schema['version']}")
        assert schema["additionalProperties"] is False
        assert f"`{schema['$id']}`" in page
        for action in schema["properties"]["action"]["enum"]:
            assert action in page


# -- who may ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server whose users may read what is on record, and change nothing but what their names allow."""
    pytest.importorskip("jupyterlab", reason="needs jupyterlab: pip install 'jupyter-mlops[lab]'")
    one = Lab(tmp_path_factory.mktemp("guarded"), options=("--ServerApp.authorizer_class=guards.Guard",))
    yield one
    one.stop()


def test_an_authorizer_is_asked_whether_the_record_may_be_changed_and_files_written(guarded: Lab) -> None:
    with Store.create(guarded.root / "a" / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
        cell = store.append(CellStarted(run=run, notebook="a.ipynb", cell="c", source="x = 1"))
        store.append(CellEnded(cell_run=cell, status="done"))
    assert guarded.ask(API + "models", path="a")[0] == 200
    (guarded.root / "may").write_text("")
    assert guarded.send(API + "models/churn/check", {"version": 1}, path="a")[0] == 403
    (guarded.root / "may").write_text("write jupyter_mlops")
    assert guarded.send(API + "models/churn/check", {"version": 1}, path="a")[0] == 404
    body = {"what": cell, "folder": "then"}
    assert guarded.send(API + "checkout", body, path="a/a.ipynb")[0] == 403
    assert not (guarded.root / "then").exists()
    (guarded.root / "may").write_text("write jupyter_mlops\nwrite contents")
    assert guarded.send(API + "checkout", body, path="a/a.ipynb")[0] == 200
    assert (guarded.root / "then" / "a.ipynb").exists()
