"""The record over HTTP: who may ask, what is answered, and what happens when a store is broken, locked or gone."""

from __future__ import annotations

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
from labs import Lab
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import Artifact, CellEnded, CellLogged, CellStarted, Gap, RunEnded, RunStarted, digest_of
from jupyter_mlops.registry import GateRefused, LocalRegistry
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
        write_run(store, "work/one.ipynb")
        write_run(store, "two.ipynb", 3)
    (folder / "work").mkdir()
    cells = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "outputs": [], "execution_count": None,
         "source": f"\n# step {number + 5}\nframe_{number + 5} = load({number + 5})"}
        for number in range(5)
    ]  # fmt: skip
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "work" / "one.ipynb").write_text(json.dumps(book))
    return folder


def rows(lab: Lab, **words: Any) -> dict[str, Any]:
    status, answer = lab.ask(API + "cell-runs", **{"path": "served/work/one.ipynb", **words})
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
    status, answer = lab.ask(API + "cells", path="served/work/one.ipynb")
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
        ("work/one.ipynb", "done", "alice")
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
    status, standing = lab.ask(API + "standing", path="served/work/one.ipynb")
    assert status == 200
    assert (standing["reproduces"], standing["cells"], standing["ran"]) == ("no", 5, 5)
    failed = {one["id"] for one in standing["findings"] if one["kind"] == "failed"}
    assert failed == {"cell-4"}
    status, refusal = lab.ask(API + "standing", path="served/work/none.ipynb")
    assert (status, refusal["kind"]) == (409, "NotebookUnreadable")


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
    return {"path": "served/work/one.ipynb", **wanted.get(address.removeprefix(API), {})}


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
            words = {"path": "served/work/one.ipynb"}
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
        body, words = body_for(handler, lab), {"path": "served/work/one.ipynb"}

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
    for address in ("overview", "cell-runs", "runs", "models", "standing"):
        status, answer = lab.ask(API + address, path=path)
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
    assert lab.ask(API + "cell-runs", path="served/work/one.ipynb", **words)[0] == 400


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
