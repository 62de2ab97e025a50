"""Makes the frozen store under ``store-1``: run once per format of the store, never again for the same one.

python tests/data/make_store.py tests/data/store-1
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellSettled,
    CellStarted,
    CheckResult,
    CodeState,
    Environment,
    Erased,
    Gap,
    ModelVersion,
    Package,
    Policy,
    RunEnded,
    RunStarted,
    Ticket,
    Transition,
)  # fmt: skip
from jupyter_mlops.store import Store


def main(target: Path) -> None:
    store = Store.create(target)
    table = store.put(b"carrier,delay\nUA,11\nAA,33\n")
    model = store.put(b"not a real model, but real bytes")
    environment = store.append(
        Environment(python="3.11.7", packages=[Package(name="pandas", version="3.0.0", origin="editable")])
    )
    code = store.append(CodeState(commit="0" * 40, branch="main", dirty=[Artifact(name="a.py", kind="file")]))
    run = store.append(
        RunStarted(
            trigger="session", notebook="delays.ipynb", user="ada", tickets=[Ticket(id="#7")],
            parameters={"lr": float("nan"), "top": float("inf"), "seed": 2**64, "home": "~/data", "odd": "\ud800"},
        )
    )  # fmt: skip
    load = store.append(
        CellStarted(
            run=run, environment=environment, code=code, cell="c1", notebook="delays.ipynb", source="df = read()"
        )
    )
    store.append(
        CellEnded(
            cell_run=load, status="done", files_read=[Artifact(name="data.csv", kind="file", digest=table)],
            outputs=[Artifact(name="df", kind="variable", type="pandas.DataFrame", digest="frame-1:" + "ab" * 32)],
        )
    )  # fmt: skip
    fit = store.append(
        CellStarted(run=run, environment=environment, cell="c2", notebook="delays.ipynb", source="fit(df)")
    )
    store.append(CellLogged(run=run, cell_run=fit, what="metric", key="accuracy", value=0.8, step=1))
    store.append(CellLogged(run=run, cell_run=fit, what="param", key="depth", value=2**60))
    store.append(
        CellEnded(
            cell_run=fit, status="done", after=[load], gaps=[Gap(subject="big", reason="over the budget")],
            inputs=[Artifact(name="df", kind="variable", digest="frame-1:" + "ab" * 32, made=load)],
        )
    )  # fmt: skip
    store.append(
        CellSettled(cell_run=fit, outputs=[Artifact(name="big", kind="variable", digest="value-1:" + "cd" * 32)])
    )
    store.append(CellStarted(run=run, cell="c3", notebook="delays.ipynb", source="crash()"))
    store.append(RunEnded(run=run, status="failed", seconds=2.0, error="the kernel died"))
    version = store.append(
        ModelVersion(
            name="delays", cell_run=fit, run=run, environment=environment, metrics={"accuracy": 0.8},
            model=Artifact(name="delays", kind="model", type="skops", digest=model, stored=True),
        )
    )  # fmt: skip
    store.append(Erased(line=load, fields=["source"], by="ada", reason="a password"))
    policy = store.append(Policy(name="production", checks=[{"check": "accuracy>=0.7"}], approvals=1))
    check = store.append(CheckResult(check="accuracy>=0.7", subject=version, passed=True, evidence={"value": 0.8}))
    store.move("models/delays", Transition(ref="models/delays", new=version, by="ada"))
    alias = "models/delays@production"
    store.move(alias, Transition(ref=alias, new=version, refused=True, by="ada", reason="too early"))
    store.move(alias, Transition(ref=alias, new=version, by="ada", checks=[check], policy=policy))
    store.close()
    for name in ("index.sqlite", "index.sum", "index.lock", ".gitignore"):
        (target / name).unlink(missing_ok=True)
    shutil.rmtree(target / "tmp")
    erase(target, load)
    with Store.open(target) as again:
        facts = {"lines": again.reindex(), "runs": {}, "cell_runs": {}, "version": version, "table": table, "fit": fit}
        for one in again.cell_runs():
            facts["cell_runs"][one.id] = [one.status, one.source, one.time]
        for run_ in again.runs():
            facts["runs"][run_.id] = [run_.status, run_.started.notebook]
    for name in ("index.sqlite", "index.sum", "index.lock"):
        (target / name).unlink(missing_ok=True)
    target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


def erase(target: Path, digest: str) -> None:
    """Take the source of one line out of its payload; everything must verify as before."""
    import msgspec

    from jupyter_mlops.records import digest_of, read_payload

    for path in (target / "journal").iterdir():
        lines = path.read_bytes().splitlines(keepends=True)
        for number, raw in enumerate(lines):
            head, _, tail = raw.partition(b"\t")
            if digest_of(head) == digest:
                payload = read_payload(tail)
                del payload["source"]
                lines[number] = head + b"\t" + msgspec.json.encode(payload) + b"\n"
        path.write_bytes(b"".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
