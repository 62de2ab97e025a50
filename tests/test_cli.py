"""The shell's commands: answers, exit codes, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_mlops import cli
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellEnded, CellLogged, CellStarted, Gap, RunEnded, RunStarted, digest_of

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(project_folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a command line, get exit code, output and errors."""

    def give(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._shell(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return give


@pytest.fixture
def record(project_folder: Path) -> dict[str, str]:
    """Two cell runs on record: one makes `x`, one reads it, logs a metric, and has a gap."""
    with Project(project_folder).store as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb", user="someone"))
        value = digest_of(b"7")
        first = store.append(CellStarted(run=run, count=1, cell="c1", notebook="a.ipynb", source="x = 7"))
        made = Artifact(name="x", kind="variable", digest=value, type="int", size=1)
        store.append(CellEnded(cell_run=first, status="done", seconds=0.1, outputs=[made]))
        second = store.append(CellStarted(run=run, count=2, cell="c2", notebook="a.ipynb", source="y = x + 1\nlog(y)"))
        store.append(CellLogged(run=run, cell_run=second, what="metric", key="score", value=0.5))
        read = Artifact(name="x", kind="variable", digest=value, type="int", size=1, made=first)
        gap = Gap(subject="<b>y</b>", reason="\x1b[31mred")
        store.append(
            CellEnded(cell_run=second, status="error", after=[first], inputs=[read], gaps=[gap], error="E: no")
        )
        store.append(RunEnded(run=run, status="failed"))
    return {"run": run, "first": first, "second": second}


def test_status_says_where_one_is(shell: Shell, record: dict[str, str]) -> None:
    code, out, _ = shell()
    assert code == 0
    assert "2 cell runs, 1 run," in out
    assert shell("status")[1] == out


def test_status_outside_of_a_project_says_how_to_make_one(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = shell("status")
    assert (code, "mlops init" in out) == (0, True)
    code, _, error = shell("log")
    assert (code, "mlops init" in error) == (3, True)


def test_init_makes_a_project_once(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    assert "A project now" in shell("init")[1]
    assert "A project already" in shell("init")[1]
    assert (tmp_path / "new" / ".mlops" / "format").is_file()


def test_log_shows_the_latest_first(shell: Shell, record: dict[str, str]) -> None:
    lines = shell("log")[1].splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        record[name].removeprefix("blake3:")[:10] for name in ("second", "first")
    ]
    assert len(shell("log", "-n", "1")[1].splitlines()) == 2
    assert len(shell("log", "--cell", "c1")[1].splitlines()) == 2


def test_json_is_the_record(shell: Shell, record: dict[str, str]) -> None:
    code, out, _ = shell("log", "--json")
    assert code == 0
    assert [one["id"] for one in json.loads(out)] == [record["second"], record["first"]]


def test_show_finds_a_thing_by_digest_variable_and_metric(shell: Shell, record: dict[str, str]) -> None:
    short = record["first"].removeprefix("blake3:")[:10]
    assert "x = 7" in shell("show", short)[1]
    assert "int" in shell("show", "x")[1]
    assert "score = 0.5" in shell("show", "score")[1]
    assert "a.ipynb" in shell("show", record["run"])[1]


def test_recorded_text_reaches_the_terminal_as_text(shell: Shell, record: dict[str, str]) -> None:
    out = shell("show", record["second"])[1]
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out


def test_what_is_not_known_is_said_with_what_to_type(shell: Shell, record: dict[str, str]) -> None:
    code, out, error = shell("show", "nonsense!")
    assert (code, out) == (3, "")
    assert "'nonsense!' is not known here" in error
    assert "mlops log" in error


def test_lineage_walks_back(shell: Shell, record: dict[str, str]) -> None:
    code, out, _ = shell("lineage", "score")
    assert code == 0
    assert all(record[name].removeprefix("blake3:")[:10] in out for name in ("first", "second"))


def test_diff_answers_no_where_something_differs(shell: Shell, record: dict[str, str]) -> None:
    code, out, _ = shell("diff", record["first"], record["second"])
    assert code == 1
    assert "+y = x + 1" in out
    assert shell("diff", record["first"], record["first"])[0] == 0


def test_diff_of_two_kinds_is_wrong_use(shell: Shell, record: dict[str, str]) -> None:
    assert shell("diff", record["first"], record["run"])[0] == 2


@pytest.mark.parametrize("words", [("nope",), ("log", "--nope"), ("log", "-n", "x"), ("show",)])
def test_wrong_words_end_with_2_and_change_nothing(shell: Shell, words: tuple[str, ...]) -> None:
    code, out, error = shell(*words)
    assert (code, out) == (2, "")
    assert "Usage" in error or "Error" in error


def test_fsck_names_what_is_damaged_and_ends_with_1(shell: Shell, record: dict[str, str], project_folder: Path) -> None:
    assert shell("fsck")[:2] == (0, "fsck: clean\n")
    (journal,) = (project_folder / ".mlops" / "journal").iterdir()
    raw = bytearray(journal.read_bytes())
    raw[raw.index(b"x = 7")] ^= 1
    journal.write_bytes(raw)
    code, out, _ = shell("fsck")
    assert code == 1
    assert journal.name in out


def test_reindex_reads_every_line(shell: Shell, record: dict[str, str]) -> None:
    before = shell("log")[1]
    assert shell("reindex")[1].endswith("lines read\n")
    assert shell("log")[1] == before


def test_off_belongs_to_a_kernel(shell: Shell) -> None:
    code, _, error = shell("off")
    assert (code, "%mlops off" in error) == (2, True)


def test_env_show_and_diff_answer(shell: Shell) -> None:
    code, out, _ = shell("env", "show")
    assert code == 0
    assert "scikit-learn" in out


def test_a_broken_setting_is_named(shell: Shell, project_folder: Path) -> None:
    (project_folder / "pyproject.toml").write_text("[tool.jupyter-mlops]\nbudgetms = 3\n")
    code, out, _ = shell("doctor")
    assert code == 1
    assert "budgetms" in out


def test_a_reader_that_has_seen_enough_ends_us_quietly(project_folder: Path, record: dict[str, str]) -> None:
    done = subprocess.run(
        f"{sys.executable} -m jupyter_mlops log --json | head -c 1", shell=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[", "")


def test_a_cell_gets_wrong_words_as_an_error(project_folder: Path) -> None:
    with pytest.raises(WrongUse, match="No such command"):
        cli.call(["nope"], cli.Place())


def test_every_shell_completes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops"],
        env={"_MLOPS_COMPLETE": "bash_complete", "COMP_WORDS": "mlops prom", "COMP_CWORD": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
    )
    assert "promote" in done.stdout


def test_a_version_is_approved_and_its_card_is_markdown(shell: Shell, project_folder: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from jupyter_mlops.registry import LocalRegistry

    with Project(project_folder).store as store:
        LocalRegistry(store, user="somebody").register(
            LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "m", metrics={"auc": 0.5}, description="first *try*"
        )
    assert shell("check", "m/1", "-g", "approved")[0] == 1
    code, out, _ = shell("approve", "m/1", "-m", "looked at it", "--ticket", "OPS-1")
    assert code == 0
    assert "looked at it" in out
    assert shell("check", "m/1", "-g", "approved")[0] == 0
    code, out, _ = shell("card", "m/1")
    assert code == 0
    assert out.startswith("# m, version 1\n\nfirst \\*try\\*\n")
    assert "| auc | 0.5 |" in out
    assert "## Approved" in out
    assert json.loads(shell("card", "m/1", "--json")[1])["markdown"] == out.rstrip("\n")
    shell("approve", "m/1", "--withdraw")
    assert "## Approved" not in shell("card", "m/1")[1]
    assert shell("card", "m/2")[0] == 3


def test_what_the_settings_want_to_be_said_is_asked_for_in_a_shell(shell: Shell, project_folder: Path) -> None:
    (project_folder / "pyproject.toml").write_text(
        '[tool.jupyter-mlops.gates]\nproduction = ["not-pickle"]\n[tool.jupyter-mlops.demands]\n'
        'register = ["ticket"]\napprove = ["reason"]\n'
        'promote.production = ["reason", "ticket"]\nrollback.production = ["reason"]\n'
    )
    (project_folder / "m.json").write_text('{"learner": {}}')
    assert shell("register", "m.json", "m", "--format", "json")[0] == 1
    code, _, said = shell("register", "m.json", "m", "--format", "json", "-m", "a first", "--ticket", "OPS-1")
    assert code == 0, said
    for words, next_ in (
        (("promote", "m/1", "production", "-m", "why"), "mlops promote m/1 production -m WHY --ticket ID"),
        (("approve", "m/1"), "mlops approve m/1 -m WHY"),
    ):
        code, _, said = shell(*words)
        assert code == 1
        assert next_ in said
    assert shell("promote", "m/1", "production", "-m", "why", "--ticket", "OPS-2")[0] == 0
    assert "no ticket was given" in shell("models", "m")[1]
