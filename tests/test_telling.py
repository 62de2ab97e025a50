"""What comes into a record is told to whoever listens to the server, once, whoever put it there."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernels import Kernel
from labs import Lab
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import RunEnded, RunStarted
from jupyter_mlops.registry import DemandUnmet, GateRefused, LocalRegistry
from jupyter_mlops.server import events
from jupyter_mlops.server.handling import Projects
from jupyter_mlops.store import Store

API = "jupyter-mlops/api/"


def register(registry: LocalRegistry, rate: float = 1.0, **options: Any) -> None:
    model = LogisticRegression(C=rate).fit(np.arange(20.0).reshape(-1, 1), np.arange(20) % 2)
    registry.register(model, "churn", metrics={"auc": rate}, **options)


@pytest.fixture
def shop(project_folder: Path) -> Iterator[LocalRegistry]:
    """A project with two versions of a model, as a process of its own has it."""
    (project_folder / "pyproject.toml").write_text('[tool.jupyter-mlops.gates]\nproduction = ["auc>=0.5"]\n')
    with Store.open(project_folder / ".mlops") as store:
        registry = LocalRegistry(store, user="ada")
        for rate in (1.0, 0.1):
            register(registry, rate)
        yield registry


class Followed:
    """The projects of a server, with what is told of them."""

    def __init__(self, folder: Path) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.projects = Projects(
            SimpleNamespace(root_dir=str(folder), allow_hidden=False), above=False,
            tell=lambda schema, facts: self.told.append((schema, facts)),
        )  # fmt: skip

    def look(self) -> None:
        self.projects.look(self.projects.reading(""))

    @property
    def actions(self) -> list[str]:
        return [facts["action"] for _, facts in self.told]


@pytest.fixture
def followed(project_folder: Path, shop: LocalRegistry) -> Iterator[Followed]:
    one = Followed(project_folder)
    one.projects.reading("")
    yield one
    one.projects.close()


# -- a real server ---------------------------------------------------------------------------------------------------


def test_what_a_shell_and_a_kernel_do_is_told_by_a_server_that_has_the_project_open(lab: Lab) -> None:
    import websocket

    folder = lab.root / "told-of"
    with Store.create(folder / ".mlops") as store:
        register(LocalRegistry(store, user="ada"))
        store.append(RunEnded(run=store.append(RunStarted(trigger="session")), status="done"))
    (folder / "pyproject.toml").write_text('[tool.jupyter-mlops.gates]\nproduction = ["auc>=0.5"]\n')
    assert lab.ask(API + "overview", path="told-of")[0] == 200
    address = f"{lab.base.replace('http', 'ws', 1)}api/events/subscribe?token={lab.token}"
    listener = websocket.create_connection(address, timeout=120)
    told: list[dict[str, Any]] = []

    def hear(action: str) -> dict[str, Any]:
        while True:
            one = json.loads(listener.recv())
            if one.get("project") == "told-of":
                told.append(one)
                if one["action"] == action:
                    return one

    def shell(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "-m", "jupyter_mlops", *words], cwd=folder, capture_output=True
        ).returncode

    kernel = None
    try:
        assert shell("promote", "churn/1", "production", "-m", "good enough", "--ticket", "OPS-1") == 0
        moved = hear("promoted")
        me = os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
        assert moved["schema_id"] == events.schema_id("model")
        assert (moved["model"], moved["version"], moved["alias"], moved["by"]) == ("churn", 1, "production", me)
        assert (moved["reason"], moved["tickets"]) == ("good enough", ["OPS-1"])
        assert shell("promote", "churn/1", "production", "-g", "auc>=2") == 1
        assert hear("refused")["failed"] == ["auc>=2"]
        kernel = Kernel(folder)
        kernel.run("from sklearn.linear_model import LinearRegression\nm = LinearRegression().fit([[0], [1]], [0, 1])")
        kernel.run("%mlops register m lines --ticket OPS-2")
        registered = hear("registered")
        assert (registered["model"], registered["version"], registered["tickets"]) == ("lines", 1, ["OPS-2"])
        kernel.stop()
        ended = hear("ended")
        assert (ended["schema_id"], ended["trigger"]) == (events.schema_id("run"), "session")
        assert (ended["status"], ended["user"]) == ("done", me)
        # what the server itself does is told before it asks for more, and once like all else
        for verb, body in (("rollback", {}), ("promote", {"version": 1, "gates": ["auc>=3"]})):
            assert lab.send(f"{API}models/churn/{verb}", {"alias": "production", **body}, path="told-of")[0] == 409
        assert lab.send(f"{API}models/churn/check", {"version": 1}, path="told-of")[0] == 200
        hear("checked")
    finally:
        listener.close()
        if kernel is not None and kernel.manager.is_alive():
            kernel.stop()
    assert [one["action"] for one in told] == ["promoted", "refused", "registered", "ended", "refused", "checked"]
    assert len({one["id"] for one in told[:-1]}) == len(told) - 1
    assert "could not tell" not in lab.log


# -- without one -----------------------------------------------------------------------------------------------------


def test_each_act_is_told_with_who_why_and_what_was_lacking(
    followed: Followed, shop: LocalRegistry, project_folder: Path
) -> None:
    register(shop, 0.9, reason="a third", tickets=["OPS-1"])
    shop.promote("churn/1", "production", reason="first", by="bob")
    shop.promote("churn/3", "production")
    with pytest.raises(GateRefused):
        shop.promote("churn/2", "production", reason="hope")
    shop.rollback("churn", "production", by="eve")
    shop.approve("churn/2", by="bob", reason="looked at it", tickets=["OPS-2"])
    shop.approve("churn/2", by="bob", withdraw=True)
    with (project_folder / "pyproject.toml").open("a") as settings:
        settings.write('[tool.jupyter-mlops.demands]\npromote.production = ["ticket"]\n')
    with pytest.raises(DemandUnmet):
        shop.promote("churn/3", "production", reason="again")
    shop.check("churn/3", ["auc>=0.1"])  # no act
    followed.look()
    assert {schema for schema, _ in followed.told} == {"model"}
    keys = ("action", "version", "old", "by", "reason", "tickets", "failed", "lacking")
    assert [tuple(facts.get(key) for key in keys) for _, facts in followed.told] == [
        ("registered", 3, None, "ada", "a third", ["OPS-1"], None, None),
        ("promoted", 1, None, "bob", "first", None, None, None),
        ("promoted", 3, 1, "ada", None, None, None, None),
        ("refused", 2, 3, "ada", "hope", None, ["auc>=0.5"], None),
        ("rolled back", 1, 3, "eve", "rollback", None, None, None),
        ("approved", 2, None, "bob", "looked at it", ["OPS-2"], None, None),
        ("withdrawn", 2, None, "bob", "withdrawn", None, None, None),
        ("refused", 3, 1, "ada", "again", None, None, ["ticket"]),
    ]  # fmt: skip
    assert {facts["model"] for _, facts in followed.told} == {"churn"}


def test_all_that_is_told_is_as_its_schema_says(followed: Followed, shop: LocalRegistry) -> None:
    from jupyter_events import EventLogger

    logger, heard = EventLogger(), []

    async def hear(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        heard.append(schema_id)

    events.register(logger)
    for name in events.SCHEMAS:
        logger.add_listener(schema_id=events.schema_id(name), listener=hear)
    run = shop.store.append(RunStarted(trigger="sweep", notebook="a\ud800.ipynb", user="x", on_behalf_of="y"))
    shop.store.append(RunEnded(run=run, status="a later version's", seconds=0.0))
    shop.promote("churn/1", "production", reason="first", tickets=["A"])
    shop.approve("churn/1", by="bob")
    followed.look()
    assert [schema for schema, _ in followed.told] == ["run", "model", "model"]

    async def tell() -> None:
        for schema, facts in followed.told:
            assert logger.emit(schema_id=events.schema_id(schema), data=facts) is not None
        await logger.gather_listeners()

    import asyncio

    asyncio.run(tell())
    assert heard == [events.schema_id(schema) for schema, _ in followed.told]


def test_each_fact_is_told_once_however_many_look_and_whatever_becomes_of_the_index(
    followed: Followed, shop: LocalRegistry
) -> None:
    def work(number: int) -> None:
        if number % 4 == 0:
            shop.promote("churn/1", f"place{number}", gates=["not-pickle"])
        followed.look()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    followed.look()
    shop.store.reindex()
    followed.look()
    assert sorted(facts["alias"] for _, facts in followed.told) == sorted(f"place{one}" for one in range(0, 40, 4))


def test_what_is_damaged_or_a_strangers_keeps_nothing_else_from_being_told(
    followed: Followed, shop: LocalRegistry, project_folder: Path
) -> None:
    shop.store.append(RunEnded(run=shop.store.append(RunEnded(run="blake3:" + "0" * 64, status="done")), status="done"))
    shop.promote("churn/1", "production", tickets=["A"])
    moves = project_folder / ".mlops" / "refs" / "models" / "churn@production"
    raw = (moves / "00000001.jsonl").read_bytes()
    (moves / "00000001.jsonl").write_bytes(raw.replace(b'"A"', b'"B"'))
    register(shop, 0.7)
    followed.look()
    assert followed.actions == ["registered"]


def test_a_store_that_is_gone_is_not_made_again_by_who_follows_it_and_another_one_is_followed_anew(
    followed: Followed, shop: LocalRegistry, project_folder: Path
) -> None:
    kept = project_folder.parent / "kept"
    shop.store.close()
    (project_folder / ".mlops").rename(kept)
    assert followed.projects._readings.still() == []
    assert not (project_folder / ".mlops").exists()
    shutil.copytree(kept, project_folder / ".mlops")
    followed.look()
    with Store.open(project_folder / ".mlops") as store:
        register(LocalRegistry(store, user="ada"), 0.6)
    for _ in range(1200):  # the thread finds it by itself
        if followed.told:
            break
        time.sleep(0.05)
    assert followed.actions == ["registered"]
