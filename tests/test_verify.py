"""A past run comes out the same again; where it does not, the cause that was planted is the one that is named."""

from __future__ import annotations

import http.server
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from jupyter_mlops import cli
from jupyter_mlops.environment import EnvironmentDiff
from jupyter_mlops.environment.locking import uv
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    DELETED,
    Artifact,
    CellEnded,
    CellRun,
    CellStarted,
    CheckResult,
    Digest,
    RunStarted,
)
from jupyter_mlops.reproduce.causes import Situation, causes
from jupyter_mlops.reproduce.comparing import NotTold, Sides, Tolerance, compare, numbers_close, steady
from jupyter_mlops.reproduce.contents import unlike
from jupyter_mlops.reproduce.past import past
from jupyter_mlops.reproduce.rerun import CouldNot, Wanted
from jupyter_mlops.reproduce.verify import Verification, summary, verify
from jupyter_mlops.views import subject

ROOT = Path(__file__).parent.parent


class Case:
    """A project in which notebooks are run and verified."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = Project.open(folder)
        self.run: Digest | None = None

    def write(self, *sources: str, name: str = "a.ipynb") -> Path:
        cells = [new_code_cell(source, id=f"c{at}") for at, source in enumerate(sources, 1)]
        nbformat.write(new_notebook(cells=cells), self.folder / name)
        return self.folder / name

    def ran(self, *sources: str, **options: Any) -> Digest:
        """Run a notebook of these cells headless."""
        result = run_notebook(self.write(*sources), project=self.project, **options)
        assert result.run is not None
        self.run = result.run
        return result.run

    def again(self, keep: Path | None = None, **wanted: Any) -> Verification:
        """Verify the run."""
        assert self.run is not None
        store = self.project.store
        wanted.setdefault("env", "current")
        return verify(past(store, "the run", self.run, store.run(self.run)), self.project, Wanted(**wanted), keep=keep)


@pytest.fixture
def case(project_folder: Path) -> Case:
    return Case(project_folder)


def verdicts(found: Verification) -> dict[str, str]:
    return {one.cell: one.verdict for one in found.cells}


def named(found: Verification) -> list[tuple[str, str, bool]]:
    """The causes of the first cell that differs: kind, words, whether proved."""
    assert found.first is not None
    return [(one.kind, one.what, one.proved) for one in found.first.causes]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).as_posix().startswith((".mlops/", ".git/"))
    }


# -- identical -------------------------------------------------------------------------------------------------------

ALL = (
    "import helpers\nimport numpy as np\nimport pandas as pd\nfrom jupyter_mlops import log_metric\nnp.random.seed(7)",
    "df = pd.read_csv('data.csv')\ndf",
    "noise = np.random.normal(size=100)\nscore = helpers.twice(df.a.mean()) + noise.mean()\nlog_metric('score', score)",
    "df.to_csv('out.csv')\nprint('score', score, object())",
)


def with_files(case: Case) -> None:
    (case.folder / "helpers.py").write_text("def twice(x):\n    return 2 * x\n")
    (case.folder / "data.csv").write_text("a,b\n1,2.5\n3,4.5\n")


def test_a_run_that_comes_out_the_same_is_identical_and_that_is_on_record(case: Case) -> None:
    with_files(case)
    run = case.ran(*ALL)
    before, lines = files(case.folder), case.project.store.counts()
    found = case.again()
    assert verdicts(found) == dict.fromkeys(("c1", "c2", "c3", "c4"), "identical")
    assert (found.verdict, bool(found), found.first) == ("identical", True, None)
    assert files(case.folder) == before
    gained = {kind: count - lines.get(kind, 0) for kind, count in case.project.store.counts().items()}
    assert {kind: count for kind, count in gained.items() if count and not kind.startswith("journal.")} == {
        "check_result": 1
    }
    assert found.result is not None
    record = case.project.store.line(found.result).record
    assert isinstance(record, CheckResult)
    assert (record.check, record.subject, record.passed) == ("reproducible", run, True)
    assert record.summary == "4 cells identical"
    assert set(record.evidence["cells"].values()) == {"identical"}


def test_the_shell_says_what_it_found_and_ends_with_it(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    with_files(case)
    run = case.ran(*ALL)
    assert cli._shell(["verify", run[7:17], "--env", "current"]) == 0
    assert "identical. 4 identical" in capsys.readouterr().out
    (case.folder / "data.csv").write_text("a,b\n1,2.5\n4,4.5\n")
    assert cli._shell(["verify", run[7:17], "--env", "current"]) == 1
    said = capsys.readouterr().out
    assert "Cell c2 is the first that differs: df = pd.read_csv('data.csv')" in said
    assert "because [data] data.csv changed: column a" in said
    assert cli._shell(["verify", run[7:17], "--env", "current", "--keep", "kept", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["folder"]) == ("differs", "kept")
    assert [one["causes"][0]["kind"] for one in told["cells"] if one.get("causes")] == ["data"]
    (case.folder / "data.csv").unlink()
    assert cli._shell(["verify", run[7:17], "--env", "current"]) == 0
    assert "data.csv is gone; the recorded bytes were used" in capsys.readouterr().out
    assert cli._shell(["verify", "data.csv", "--env", "current"]) == 0  # the run up to the cell that read it
    assert cli._shell(["verify", "nothing-of-that-name"]) == 3


def test_the_second_run_can_be_kept_and_looked_at(case: Case, tmp_path: Path) -> None:
    case.ran("x = 1", "y = x + 1")
    found = case.again(keep=tmp_path / "kept")
    assert found.folder == str(tmp_path / "kept")
    with Project(tmp_path / "kept" / "project").store as store:
        assert [one.source for one in store.cell_runs(newest_first=False)] == ["x = 1", "y = x + 1"]
    assert (tmp_path / "kept" / "again.ipynb").is_file()


def test_parameters_are_those_of_the_run(case: Case) -> None:
    path = case.write("alpha = 1", "y = alpha * 2\nprint(y)")
    book = nbformat.read(path, 4)
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    case.run = run_notebook(path, project=case.project, parameters={"alpha": 21}).run
    assert verdicts(case.again()) == {"c1": "identical", "injected-parameters": "identical", "c2": "identical"}


def test_a_run_that_failed_fails_again_in_the_same_way(case: Case) -> None:
    case.ran("x = 1", "y = 1 / 0", "z = 3")
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "identical"}


def test_the_folder_it_runs_in_is_no_difference(case: Case) -> None:
    case.ran(
        "from pathlib import Path\nimport os\nhere = Path.cwd()\ntext = os.getcwd()\nout = here / 'out' / 'x.txt'",
        "out.parent.mkdir()\nout.write_text('1')\nprint('written to', out)",
    )
    (case.folder / "out" / "x.txt").unlink()
    (case.folder / "out").rmdir()
    found = case.again()
    assert [one.differences for one in found.cells] == [(), ()]
    assert not (case.folder / "out").exists()


def test_what_is_volatile_by_nature_is_no_difference(case: Case) -> None:
    case.ran(
        "import sys, time, warnings",
        "class A: pass\nprint(A())\nA()",
        "%time x = sum(range(100_000))",
        "%%timeit -n1 -r2\nsum(range(1000))",
        "for step in range(4):\n"
        "    print(f'\\r{25 * step}%|##  | {step}/4 [00:0{step}<00:01, {time.time()}it/s]', end='', file=sys.stderr)",
        "warnings.warn('old')",
    )
    assert case.again().verdict == "identical"


def test_what_is_said_only_of_a_slow_run_is_no_difference() -> None:
    timed = "8.1 μs ± 1 μs per loop (mean ± std. dev. of 2 runs, 1 loop each)\n"
    slow = (
        "The slowest run took 4.53 times longer than the fastest. This could mean that an intermediate result is being "
        "cached.\n"
    )
    assert steady(slow + timed + "Compiler time: 0.12 s\n") == steady(timed)
    usual = "CPU times: user 1 ms, sys: 0 ns, total: 1 ms\nWall time: 1.1 ms\n"
    assert steady(usual + "Compiler : 120 ms\nParser   : 130 ms\n") == steady(usual)


def test_what_mlops_itself_answers_in_a_cell_is_no_difference() -> None:
    from jupyter_mlops.widgets import Text, View

    assert {steady(View(title=title, blocks=[Text("a time")]).html()) for title in ("one", "two")} == {
        "(answer of mlops)"
    }


def test_a_number_among_addresses_and_times_still_counts() -> None:
    assert steady("<A at 0x7f01> 3") == steady("<A at 0x7f02> 3")
    assert steady("<A at 0x7f01> 3") != steady("<A at 0x7f01> 4")
    assert steady("0x12345") != steady("0x12346")
    assert steady("d41d8cd98f00b204e9800998ecf8427e") != steady("d41d8cd98f00b204e9800998ecf8427f")
    assert steady("took 3 s") != steady("took 4 s")


# -- planted causes --------------------------------------------------------------------------------------------------


def test_data_that_was_edited_in_one_column_is_named_with_the_column(case: Case) -> None:
    with_files(case)
    case.ran(*ALL)
    (case.folder / "data.csv").write_text("a,b\n1,2.5\n3,4.75\n")
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "differs", "c3": "identical", "c4": "differs"}
    assert found.first is not None
    assert found.first.cell == "c2"
    assert named(found) == [("data", "data.csv changed: column b (16 → 17 bytes)", True)]
    assert {(one.what, one.detail) for one in found.first.differences} >= {("variable", "column b")}
    assert case.again(data="recorded").verdict == "identical"


def test_a_folder_of_data_in_which_one_file_was_edited_is_named(case: Case) -> None:
    source = "import pandas as pd\ntable = pd.read_parquet('parts')"
    pd.DataFrame({"a": [1, 2], "b": [1.0, 2.0]}).to_parquet(_parts(case) / "0.parquet")
    pd.DataFrame({"a": [3, 4], "b": [3.0, 4.0]}).to_parquet(_parts(case) / "1.parquet")
    case.ran(source, "total = table.a.sum()")
    assert case.again().verdict == "identical"
    pd.DataFrame({"a": [3, 5], "b": [3.0, 4.0]}).to_parquet(_parts(case) / "1.parquet")
    found = case.again()
    assert verdicts(found) == {"c1": "differs", "c2": "differs"}
    assert [(kind, "parts" in what, "column a" in what) for kind, what, _ in named(found)] == [("data", True, True)]


def _parts(case: Case) -> Path:
    (case.folder / "parts").mkdir(exist_ok=True)
    return case.folder / "parts"


def test_a_run_in_another_folder_than_its_notebooks_runs_there_again(case: Case) -> None:
    (case.folder / "data.csv").write_text("a\n1\n")
    (case.folder / "books").mkdir()
    path = case.write("text = open('data.csv').read()", name="books/a.ipynb")
    case.run = run_notebook(path, project=case.project, cwd=case.folder).run
    assert case.again().verdict == "identical"


def test_data_that_is_gone_is_a_reason_and_no_verdict(case: Case) -> None:
    (case.folder / ".gitignore").write_text("data.csv\n")
    (case.folder / "data.csv").write_text("a\n1\n")
    case.ran("text = open('data.csv').read()")
    (case.folder / "data.csv").unlink()
    lines = case.project.store.counts()
    with pytest.raises(CouldNot, match=r"data\.csv is gone and its bytes were not kept") as refused:
        case.again()
    assert refused.value.exit_code == 3
    assert case.project.store.counts() == lines


def test_a_package_of_another_version_is_named_with_both(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Callable[..., Path]
) -> None:
    site = tmp_path / "site-packages"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(site))
    for version, factor in (("1.0", 2), ("2.0", 3)):
        made = wheel(tmp_path, "own-tool", version, own_tool=f"def grow(x):\n    return {factor} * x\n")
        done = uv("pip", "install", "-q", "--upgrade", "--target", str(site), str(made), offline=True)
        assert done.returncode == 0, done.stderr
        if version == "1.0":
            case.ran("from own_tool import grow", "x = 5", "y = grow(x)")
            assert case.again().verdict == "identical"
    found = case.again()
    assert verdicts(found)["c3"] == "differs"
    assert ("package", "own-tool 1.0 → 2.0", True) in named(found)


def test_a_module_that_was_edited_is_named_where_the_present_code_is_asked_about(case: Case) -> None:
    with_files(case)
    case.ran(*ALL)
    (case.folder / "helpers.py").write_text("def twice(x):\n    return 3 * x\n")
    found = case.again()
    assert found.verdict == "identical"
    assert found.notes == ("helpers.py is not what it was; the recorded source was used",)
    found = case.again(code="current")
    assert found.first is not None
    assert found.first.cell == "c3"
    assert named(found) == [("code", "helpers.py changed", True)]
    assert found.result is not None
    record = case.project.store.line(found.result).record
    assert isinstance(record, CheckResult)
    assert record.check == "reproducible:code=current"


def test_a_module_with_a_secret_is_taken_from_here_if_it_is_the_same_and_is_named_if_not(case: Case) -> None:
    module = "KEY = 'ghp_{}'\ndef size():\n    return len(KEY) + {}\n"
    (case.folder / "helpers.py").write_text(module.format("a1B2" * 9, 1))
    case.ran("import helpers", "n = helpers.size()")
    assert case.again().verdict == "identical"
    (case.folder / "helpers.py").write_text(module.format("a1B2" * 9, 2))
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "differs"}
    assert named(found) == [("masked", "secrets are masked in helpers.py", False)]


def test_a_cell_that_was_edited_is_named_where_the_present_code_is_asked_about(case: Case) -> None:
    case.ran("x = 1", "y = x + 1", "z = y + 1")
    case.write("x = 1", "y = x + 2", "z = y + 1")
    assert case.again().verdict == "identical"
    found = case.again(code="current")
    assert verdicts(found) == {"c1": "identical", "c2": "differs", "c3": "differs"}
    assert named(found) == [("code", "cell c2 changed", True)]
    assert [one.cell for one in found.cells if one.causes] == ["c2"]


@pytest.mark.parametrize(
    ("draw", "generator"),
    [
        ("import random", "random.random()"),
        ("import numpy as np", "np.random.normal()"),
    ],
)
def test_randomness_without_a_seed_is_named_with_generator_and_cell(case: Case, draw: str, generator: str) -> None:
    module = {"import random": "random.seed(1)", "import numpy as np": "np.random.seed(1)"}[draw]
    case.ran(draw, module, f"x = {generator}", "y = x + 1")
    assert case.again().verdict == "identical"
    case.ran(draw, "pass", f"x = {generator}", "y = x + 1")
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "identical", "c3": "differs", "c4": "differs"}
    name = "random" if draw == "import random" else "numpy.random"
    assert named(found) == [("randomness", f"{name} is not seeded before cell c3", False)]


def test_a_generator_of_its_own_without_a_seed_is_named(case: Case) -> None:
    case.ran("import numpy as np", "rng = np.random.default_rng()", "x = float(rng.normal())")
    found = case.again()
    assert found.first is not None
    assert "randomness" in {one.kind for cell in found.cells for one in cell.causes}


def test_a_value_that_no_cell_made_is_hidden_state(case: Case) -> None:
    startup = Path(os.environ["IPYTHONDIR"]) / "profile_default" / "startup" / "00-own.py"
    startup.parent.mkdir(parents=True, exist_ok=True)
    startup.write_text("rate = 3\n")
    try:
        case.ran("x = 2", "y = x * rate")
        assert case.again().verdict == "identical"
    finally:
        startup.unlink()
    found = case.again()
    assert found.first is not None
    assert found.first.cell == "c2"
    assert named(found)[0] == ("hidden state", "cell c2 used rate, which no recorded cell made", True)


def test_the_time_is_named(case: Case) -> None:
    case.ran("import time", "def stamp():\n    return time.time()", "t = stamp()")
    found = case.again()
    assert found.first is not None
    assert found.first.cell == "c3"
    assert named(found) == [("time", "cell c3 asks for the time (time.time in stamp)", False)]


@pytest.fixture
def server() -> Iterator[tuple[str, Callable[[bytes], None]]]:
    """An address that answers, and how to change its answer."""
    answer = [b"[1, 2, 3]"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer[0])))
            self.end_headers()
            self.wfile.write(answer[0])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/rates", lambda data: answer.__setitem__(0, data)
        served.shutdown()
        thread.join()


def test_a_source_that_answers_something_else_is_named(case: Case, server: tuple[str, Callable[[bytes], None]]) -> None:
    address, change = server
    case.ran("import json, urllib.request", f"rates = json.load(urllib.request.urlopen('{address}'))", "s = sum(rates)")
    assert case.again().verdict == "identical"
    change(b"[1, 2, 4]")
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "differs", "c3": "differs"}
    assert [(kind, address in what) for kind, what, _ in named(found)] == [("network", True)]


def test_a_variable_of_the_environment_is_named_with_both_values_where_they_are_on_record(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    monkeypatch.setenv("MODE", "fast")
    case.ran("import os", "a = os.environ['OMP_SCHEDULE']", "b = os.environ.get('MODE')")
    assert case.again().verdict == "identical"
    monkeypatch.setenv("OMP_SCHEDULE", "dynamic")
    monkeypatch.setenv("MODE", "slow")
    found = case.again()
    by_cell = {one.cell: [(cause.kind, cause.what, cause.proved) for cause in one.causes] for one in found.cells}
    assert by_cell["c2"] == [("environment variable", "OMP_SCHEDULE: static → dynamic", True)]
    ((kind, what, proved),) = by_cell["c3"]
    assert (kind, proved) == ("environment variable", False)
    assert "values are not on record" in what


def test_another_python_is_a_cause_and_another_machine_only_where_there_is_no_other(case: Case) -> None:
    case.ran("x = 1")
    (cell,) = case.project.store.cell_runs(run=case.run)
    told = Situation(
        old=[cell], new=[cell], sides=Sides(old=lambda _: None, new=lambda _: None), order=[0],
        environment=EnvironmentDiff(facts=(("cpu", "one", "other"), ("python", "3.11.7", "3.12.1"))),
    )  # fmt: skip
    assert [(one.kind, one.what, one.proved) for one in causes(told, 0)] == [("python", "python 3.11.7 → 3.12.1", True)]
    told = msgspec.structs.replace(told, environment=EnvironmentDiff(facts=(("cpu", "one", "other"),)))
    assert [(one.kind, one.what, one.proved) for one in causes(told, 0)] == [("machine", "cpu one → other", False)]


OWN = ".".join(platform.python_version_tuple()[:2])
BY_PYTHON = (
    "total = sum([0.1] * 10)",  # from 3.12 on what adding floats loses is made up for
    'def told():\n    """One line,\n        and one more."""\n\ntext = told.__doc__',  # unindented from 3.13 on
)


@pytest.fixture(params=[version for version in ("3.11", "3.12", "3.13") if version != OWN])
def other(request: pytest.FixtureRequest) -> Path:
    """Another Python, with the package in an environment of its own: `tests/run.sh` makes one for each it finds."""
    found = ROOT / f".venv-test-{request.param}" / "bin" / "python"
    if not found.exists():
        pytest.skip(
            f"needs Python {request.param} in .venv-test-{request.param}: tests/run.sh makes it where it finds one"
        )
    return found


def full(python: Path) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_another_python_is_the_cause_whichever_of_the_two_comes_first(case: Case, other: Path) -> None:
    def tell(code: int, *words: str) -> Any:
        words = ("-m", "jupyter_mlops", *words, "--json")
        done = subprocess.run([other, *words], cwd=case.folder, capture_output=True, text=True)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    here, there = platform.python_version(), full(other)
    older, newer = sorted((here, there), key=lambda version: [int(part) for part in version.split(".")])
    minors = [int(version.split(".")[1]) for version in (older, newer)]
    expected = {
        cell: "differs" if minors[0] < since <= minors[1] else "identical" for cell, since in (("c1", 12), ("c2", 13))
    }
    run = case.ran(*BY_PYTHON)
    assert case.again().verdict == "identical"
    answer = tell(1, "verify", run, "--env", "current")
    assert {one["cell"]: one["verdict"] for one in answer["cells"]} == expected
    first = next(one for one in answer["cells"] if one["verdict"] == "differs")
    assert {"kind": "python", "what": f"python {here} → {there}"} in first["causes"]
    assert {one["kind"] for one in first["causes"]} <= {"python", "package"}

    ran = tell(0, "run", "a.ipynb", "-o", "out.ipynb")
    case.run = ran["run"]
    found = case.again()
    assert verdicts(found) == expected
    assert ("python", f"python {there} → {here}", True) in named(found)
    found = case.again(tolerance=Tolerance(rtol=1e-12))
    assert verdicts(found)["c1"] == expected["c1"].replace("differs", "within tolerance")


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two processors to choose from"
)
def test_fewer_processors_are_the_cause_of_a_sum_taken_part_by_part(case: Case) -> None:
    processors = os.sched_getaffinity(0)

    def total(size: int, count: int) -> float:
        xs = np.sqrt(np.arange(size, dtype=np.float32))
        return float(sum(part.sum() for part in np.array_split(xs, count)))

    size = next(size for size in range(99_991, 101_000) if total(size, 1) != total(size, len(processors)))
    case.ran(
        f"import os\nimport numpy as np\nxs = np.sqrt(np.arange({size}, dtype=np.float32))",
        "parts = np.array_split(xs, len(os.sched_getaffinity(0)))\ntotal = float(sum(part.sum() for part in parts))\n"
        "del parts",
    )
    assert case.again().verdict == "identical"
    os.sched_setaffinity(0, {min(processors)})
    try:
        found = case.again()
        near = case.again(tolerance=Tolerance(rtol=1e-5))
    finally:
        os.sched_setaffinity(0, processors)
    assert verdicts(found) == {"c1": "identical", "c2": "differs"}
    assert named(found) == [("machine", f"cores {len(processors)} → 1", False)]
    assert verdicts(near) == {"c1": "identical", "c2": "within tolerance"}


def test_the_kernels_of_another_processor_are_the_cause_of_the_last_bits_of_a_product(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import numpy as np\na = np.sqrt(np.arange(40_000.0)).reshape(200, 200)"
    product = "b = a @ a.T"
    run = f"{source}\n{product}\nprint(b.tobytes().hex())"
    older = {name: _told({**os.environ, "OPENBLAS_CORETYPE": name}, run) for name in ("Prescott", "Nehalem", "Haswell")}
    usual = _told(dict(os.environ), run)
    name = next((name for name, total in older.items() if total != usual), None)
    if name is None:
        pytest.skip("needs a NumPy whose OpenBLAS has code for several processors (x86-64)")
    case.ran(source, product)
    assert case.again().verdict == "identical"
    monkeypatch.setenv("OPENBLAS_CORETYPE", name)
    found = case.again()
    assert verdicts(found) == {"c1": "identical", "c2": "differs"}
    assert named(found) == [("environment variable", f"OPENBLAS_CORETYPE: (not set) → {name}", False)]
    assert verdicts(case.again(tolerance=Tolerance(rtol=1e-12)))["c2"] == "within tolerance"


def _told(environ: dict[str, str], code: str) -> str:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environ, check=True, capture_output=True, text=True).stdout


def test_what_is_on_no_record_is_not_blamed_on_anything(case: Case, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    source = f"import os\nos.system('echo x >> {counter}')\nn = int(os.popen('wc -l < {counter}').read())"
    case.ran(source)
    found = case.again()
    assert named(found) == [("unknown", "nothing that is on record has changed", False)]


# -- tolerance -------------------------------------------------------------------------------------------------------


def test_numbers_that_are_shown_and_logged_may_differ_within_a_tolerance(case: Case) -> None:
    (case.folder / "rate.txt").write_text("0.5")
    case.ran(
        "from jupyter_mlops import log_metric",
        "log_metric('rate', float(open('rate.txt').read()))\nprint('rate:', open('rate.txt').read(), 'of', 3)",
    )
    (case.folder / "rate.txt").write_text("0.5000001")
    assert case.again().verdict == "differs"
    found = case.again(tolerance=Tolerance(rtol=1e-6))
    assert verdicts(found) == {"c1": "identical", "c2": "within tolerance"}
    assert {(one.what, one.how, one.basis) for one in found.cells[1].differences} == {
        ("metric", "within tolerance", "values as logged"), ("display", "within tolerance", "numbers shown"),
    }  # fmt: skip
    assert bool(found)
    assert case.again(tolerance=Tolerance(rtol=1e-9)).verdict == "differs"


VALUES = (
    "import numpy as np, pandas as pd\nrate = float(open('rate.txt').read())",
    "pair = [rate, 2.0]\nfew = np.linspace(0, rate, 5)",
    "many = np.linspace(0, rate, 1000)\ntable = pd.DataFrame({'n': range(1000), 'x': many, 's': 'a'})",
    "column = table.x * 2",
)


def test_variables_may_differ_within_a_tolerance_by_their_numbers_or_their_ranges(case: Case) -> None:
    (case.folder / "rate.txt").write_text("0.5")
    case.ran(*VALUES)
    (case.folder / "rate.txt").write_text("0.5000001")
    found = case.again(tolerance=Tolerance(rtol=1e-6))
    assert set(verdicts(found).values()) == {"within tolerance"}
    basis = {one.name: one.basis for cell in found.cells for one in cell.differences}
    assert {name for name, how in basis.items() if how == "its numbers"} == {"rate", "pair", "few"}
    assert {name for name, how in basis.items() if how.startswith("count, least")} == {"many", "table", "column"}
    found = case.again()
    assert set(verdicts(found).values()) == {"differs"}
    assert found.first is not None
    assert (found.first.differences[0].old, found.first.differences[0].new) == ("0.5", "0.5000001")
    assert case.again(tolerance=Tolerance(rtol=1e-9)).verdict == "differs"


def test_a_tolerance_excuses_no_text_and_no_other_form(case: Case) -> None:
    (case.folder / "name.txt").write_text("a")
    case.ran(
        "import numpy as np, pandas as pd\nname = open('name.txt').read()",
        "table = pd.DataFrame({'x': [1.0] * 100, 's': [name] * 100})",
        "grown = np.zeros(100 + ord(name))",
        "mixed = [1.0, name]",
    )
    (case.folder / "name.txt").write_text("b")
    found = case.again(tolerance=Tolerance(rtol=10, atol=1000))
    assert set(verdicts(found).values()) == {"differs"}


def test_numbers_are_kept_only_where_displays_are(case: Case, session: Callable[[str, str], None]) -> None:
    session("c1", "x = 1.5")
    (made,) = (one for run in case.project.store.cell_runs() for one in run.outputs if one.name == "x")
    assert made.numbers == []
    case.ran("x = 1.5")
    (made,) = (one for run in case.project.store.cell_runs(run=case.run) for one in run.outputs if one.name == "x")
    assert made.numbers == [1.5]


NUDGED = (
    "import numpy as np\nfrom sklearn.ensemble import RandomForestRegressor\n"
    "from sklearn.linear_model import LinearRegression\nfrom sklearn.pipeline import make_pipeline\n"
    "from sklearn.preprocessing import StandardScaler\nnudge = float(open('nudge.txt').read())",
    "x = np.sqrt(np.arange(120.0)).reshape(60, 2)\ny = x @ [2.0, -1.0] + nudge * x[:, 0]",
    "line = make_pipeline(StandardScaler(), LinearRegression()).fit(x, y)",
    "forest = RandomForestRegressor(n_estimators=3, random_state=0).fit(x, y)",
)


def nudged(case: Case, *cells: str, near: float = 0.5 + 1e-12) -> None:
    """Run cells that read a number, and change it a little."""
    (case.folder / "nudge.txt").write_text("0.5")
    case.ran(*cells)
    (case.folder / "nudge.txt").write_text(repr(near))


def of(found: Verification, name: str) -> tuple[str, str, str]:
    """How a variable differs, by what that was told, and where or why not."""
    (one,) = (one for cell in found.cells for one in cell.differences if (one.what, one.name) == ("variable", name))
    return one.how, one.basis, one.detail


NEAR = Tolerance(rtol=1e-9, atol=1e-9)
ALL_NUMBERS = "all its numbers, of the kept values"
BY_DIGEST = "digests of the whole content"


@pytest.fixture
def seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the test's own for what checkpoints seal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_registered_models_whose_learned_numbers_are_near_are_equal_within_a_tolerance(case: Case, seal: None) -> None:
    nudged(case, *NUDGED, "%mlops register line line", "%mlops register forest forest")
    found = case.again(tolerance=NEAR)
    assert of(found, "line") == of(found, "forest") == ("within tolerance", ALL_NUMBERS, "")
    assert verdicts(found)["c3"] == verdicts(found)["c4"] == "within tolerance"
    assert bool(found)
    found = case.again(tolerance=Tolerance(rtol=1e-16))
    how, basis, where = of(found, "line")
    assert (how, basis) == ("differs", BY_DIGEST)
    assert ".steps[1][1]" in where
    assert of(found, "forest")[0] == "differs"


def test_a_model_that_learned_something_else_differs_whatever_its_size(case: Case, seal: None) -> None:
    saw = "x = np.arange(60.0)[:, None]\ny = x[:, 0] % (7 if nudge < 0.6 else 2)"
    nudged(case, NUDGED[0], saw, NUDGED[3], "%mlops register forest forest", near=0.75)
    found = case.again(tolerance=Tolerance(atol=1000))
    how, _, where = of(found, "forest")
    assert (how, where.startswith(".estimators_")) == ("differs", True)


def test_a_model_that_nobody_kept_differs_and_it_is_said_that_it_could_not_be_told(case: Case) -> None:
    nudged(case, *NUDGED)
    why = "whether it is within the tolerance is not known: its value was not kept"
    assert of(case.again(tolerance=NEAR), "forest") == ("differs", BY_DIGEST, why)


def test_a_model_registered_as_a_pickle_is_not_loaded_to_be_compared(case: Case) -> None:
    nudged(case, *NUDGED, "%mlops register line line --format pickle")
    why = "whether it is within the tolerance is not known: it was registered as a pickle, which is not loaded"
    assert of(case.again(tolerance=NEAR), "line") == ("differs", BY_DIGEST, why)


def test_values_that_checkpoints_keep_are_held_against_each_other_number_by_number(case: Case, seal: None) -> None:
    nudged(
        case, "%mlops checkpoint on", *NUDGED,
        "table = __import__('pandas').DataFrame({'n': range(60), 'y': y, 's': 'a'})\n"
        "deep = {'w': [[nudge * k for k in range(100)], 'text']}",
        "class Own:\n    pass\n\nown = Own()\nown.rate = nudge", "pass",
    )  # fmt: skip
    found = case.again(tolerance=NEAR)
    for name in ("line", "forest", "table", "deep"):
        assert of(found, name)[:2] == ("within tolerance", ALL_NUMBERS), name
    why = "whether it is within the tolerance is not known: it holds code, which is not run here"
    assert of(found, "own") == ("differs", BY_DIGEST, why)
    found = case.again(tolerance=Tolerance(rtol=1e-16))
    assert of(found, "deep") == ("differs", BY_DIGEST, "['w'][0][1]")


def test_numbers_in_another_order_have_the_same_ranges_and_are_told_apart_where_they_are_kept(
    case: Case, seal: None
) -> None:
    numbers = "import numpy as np\nxs = np.array([float(x) for x in open('xs.txt').read().split()])"
    for first, how in (("pass", "within tolerance"), ("%mlops checkpoint on", "differs")):
        (case.folder / "xs.txt").write_text(" ".join(map(str, range(100))))
        case.ran(first, numbers, "pass")
        (case.folder / "xs.txt").write_text(" ".join(map(str, reversed(range(100)))))
        assert of(case.again(tolerance=Tolerance(rtol=1e-9)), "xs")[0] == how


class Odd:
    """Of no library whose objects tell their parts."""


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (1.0, 1.0 + 1e-12, None), (1.0, 1.1, "its value"), (1, 1.0, "its type"), (float("nan"), float("nan"), None),
        (float("inf"), float("-inf"), "its value"), ([1.0, "a"], [1.0, "b"], "[1]"), ([1.0], [1.0, 2.0], "its length"),
        ({"a": 1.0}, {"b": 1.0}, "its keys"), ((True, None), (False, None), "[0]"), (1j, 1j + 1e-12, None),
        (1j, 1.1j, "(an array of complex128)"),
        (np.array([1.0, np.nan, np.inf]), np.array([1.0 + 1e-12, np.nan, np.inf]), None),
        (np.array([1.0, np.inf]), np.array([1.0, 2.0]), "(an array of float64)"),
        (np.array([1.0], np.float32), np.array([1.0]), "its shape"),
        (np.array([(1, 0.5)], "i8,f8"), np.array([(1, 0.5 + 1e-12)], "i8,f8"), None),
        (np.array([(1, 0.5)], "i8,f8"), np.array([(1, 0.6)], "i8,f8"), "['f1'] (an array of float64)"),
        (np.array([1.0, "a"], object), np.array([1.0 + 1e-12, "a"], object), None),
        (np.array(["NaT", "2020-01-01"], "M8[D]"), np.array(["NaT", "2020-01-01"], "M8[D]"), None),
        (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]"), "(an array of datetime64[D])"),
        (np.float64(1), np.float64(1 + 1e-12), None), (np.float64(1), np.float64(2), "(an array of float64)"),
        (pd.DataFrame({"x": [1.0, None]}), pd.DataFrame({"x": [1.0 + 1e-12, None]}), None),
        (pd.DataFrame({"x": [1.0, None]}), pd.DataFrame({"x": [1.0, 2.0]}), "['x']"),
        (pd.DataFrame({"x": [1.0]}), pd.DataFrame({"y": [1.0]}), ".columns"),
        (pd.Series(["a"]), pd.Series(["b"]), "its values"),
        (pd.Series([1.0], index=[0]), pd.Series([1.0], index=[1]), ".index"),
    ],
)  # fmt: skip
def test_two_values_are_near_in_every_number_and_the_same_in_all_else(old: Any, new: Any, where: str | None) -> None:
    assert unlike(old, new, Tolerance(rtol=1e-9)) == where
    assert unlike(new, old, Tolerance(rtol=1e-9)) == where


def test_whole_numbers_in_an_estimator_have_to_be_the_same_and_circles_end() -> None:
    trees = [DecisionTreeRegressor(max_depth=depth).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 5.0]) for depth in (1, 2)]
    assert unlike(trees[0], trees[1], Tolerance(atol=10)) == ".max_depth"
    one, other = (LinearRegression().fit([[0.0], [1.0]], [0.0, top]) for top in (1.0, 1.0 + 1e-12))
    assert unlike(one, other, Tolerance(atol=1e-9)) is None
    other.rank_ = 2
    assert unlike(one, other, Tolerance(atol=10)) == ".rank_"
    circles: list[list[Any]] = [[1.0], [1.0 + 1e-12]]
    for circle in circles:
        circle.append(circle)
    assert unlike(*circles, Tolerance(rtol=1e-9)) is None
    with pytest.raises(NotTold, match="Odd, whose parts are not known"):
        unlike([Odd()], [Odd()], Tolerance(rtol=1))


@pytest.mark.parametrize(
    ("old", "new", "close"),
    [
        ("x 1.0", "x 1.0000001", True), ("x 1.0", "y 1.0", False), ("1 2", "1", False), ("nan", "nan", True),
        ("nan", "1", False), ("-1e-9", "1e-9", False), ("a1b", "a2b", False), ("  1.25 ab", " 1.2500001 ab", True),
        ("v1.2.3", "v1.2.4", False), ("inf", "-inf", False), ("inf", "5", False), ("inf", "inf", True),
    ],
)  # fmt: skip
def test_texts_are_close_only_if_all_but_their_numbers_is_the_same(old: str, new: str, close: bool) -> None:
    assert numbers_close(old, new, Tolerance(rtol=1e-6)) is close


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_run_that_writes_outside_of_the_project_is_not_run_again(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    out = tmp_path / "results.txt"
    case.ran(f"with open('{out}', 'w') as file:\n    file.write('first')")
    out.write_text("precious\n")
    with pytest.raises(CouldNot, match=r"would be written over"):
        case.again()
    case.ran(f"with open('{case.folder / 'own.txt'}', 'w') as file:\n    file.write('first')")
    with pytest.raises(CouldNot, match=r"would be written over"):
        case.again()
    assert out.read_text() == "precious\n"


def test_a_hostile_folder_or_notebook_on_record_leads_nowhere(case: Case, tmp_path: Path) -> None:
    store = case.project.store
    case.ran("x = 1")
    (environment,) = {one.environment for one in store.cell_runs(run=case.run)}
    for folder, notebook in (("../..", "../../evil.ipynb"), (str(tmp_path), str(tmp_path / "evil.ipynb")), ("~", "x")):
        run = store.append(RunStarted(trigger="papermill", folder=folder, notebook=notebook))
        source = "with open('written.txt', 'w') as file:\n    file.write('1')"
        cell = store.append(CellStarted(run=run, environment=environment, count=1, cell="c1", source=source))
        store.append(CellEnded(cell_run=cell, status="done"))
        case.run = run
        before = {path for path in tmp_path.rglob("*") if ".mlops" not in path.parts}
        found = case.again()
        written = [(one.name, one.new) for one in found.cells[0].differences if one.what == "file"]
        assert written == [("written.txt", "written")]
        assert {path for path in tmp_path.rglob("*") if ".mlops" not in path.parts} == before


def test_of_what_a_session_made_only_the_cells_that_it_needs_run_again(
    case: Case, session: Callable[[str, str], None]
) -> None:
    session("c1", "import time\nxs = [1, 2]")
    session("c2", "started = time.time()\nprint(started)")
    session("c3", "broken")
    session("c4", "total = sum(xs)\nended = time.time()\nprint(ended)")
    store = case.project.store
    found = subject(case.project, "total")
    again = verify(past(store, "total", found.line, found.value), case.project, Wanted(env="current"))
    assert verdicts(again) == {"c1": "identical", "c4": "identical"}
    assert "2 of 5 cells run again: those that it needs" in again.notes
    whole = verify(past(store, "total", found.line, found.value), case.project, Wanted(env="current", extent="all"))
    assert verdicts(whole) == {"c1": "identical", "c2": "differs", "c3": "identical", "c4": "differs"}
    assert {one.cell: [cause.kind for cause in one.causes] for one in whole.cells if one.causes} == {
        "c2": ["time"], "c4": ["time"],
    }  # fmt: skip


def test_what_was_logged_at_a_step_counts_for_who_asks_about_that_metric(case: Case) -> None:
    case.ran(
        "from jupyter_mlops import log_metric\nimport random",
        "log_metric('fixed', 1)\nfor step in (1, 2): log_metric('loss', random.random(), step=step)",
    )
    store = case.project.store
    assert case.run is not None
    made = store.cell_runs(run=case.run, newest_first=False)[1]
    of_loss = verify(past(store, "loss", made.id, made), case.project, Wanted(env="current", extent="slice"))
    assert of_loss.verdict == "differs"
    assert [one.name for one in of_loss.cells[-1].differences] == ["loss (step 1)", "loss (step 2)"]
    of_fixed = verify(past(store, "fixed", made.id, made), case.project, Wanted(env="current", extent="slice"))
    assert of_fixed.verdict == "identical"


def test_what_nobody_can_compare_is_counted_in_the_verdicts_words(case: Case) -> None:
    case.ran("n = 1", "it = iter([n])\ngone = (n for _ in range(2))")
    found = case.again()
    assert (found.verdict, summary(found)) == (
        "identical", "2 cells identical; 2 of what they left are not comparable"
    )  # fmt: skip
    assert [one.how for one in found.cells[1].differences] == ["not comparable"] * 2


@pytest.mark.parametrize(
    ("old", "new", "hows"),
    [
        ({"digest": None, "why": "over the budget"}, {"digest": None, "why": "over the budget"}, ["not comparable"]),
        ({"digest": None, "why": DELETED}, {"digest": None, "why": DELETED}, []),
        ({"digest": None, "why": DELETED}, {"digest": "blake3:" + "1" * 64}, ["differs"]),
        ({"digest": "blake3:" + "1" * 64}, {"digest": None, "why": DELETED}, ["differs"]),
        ({"digest": "blake3:" + "1" * 64}, {"digest": "blake3:" + "1" * 64}, []),
    ],
)  # fmt: skip
def test_files_without_a_digest_are_not_taken_for_the_same(old: Any, new: Any, hows: list[str]) -> None:
    runs = []
    for one in (old, new):
        file = Artifact(name="out.csv", kind="file", **one)
        started = CellStarted(run=Digest("blake3:" + "2" * 64), source="write()")
        ended = CellEnded(cell_run=Digest("blake3:" + "3" * 64), status="done", files_written=[file])
        runs.append(CellRun(id=ended.cell_run, time="", writer="", seq=0, started=started, ended=ended))
    sides = Sides(old=lambda _: None, new=lambda _: None)
    assert [one.how for one in compare(runs[0], runs[1], sides)] == hows


def test_a_session_is_verified_from_a_cell_of_its_own(case: Case, session: Callable[[str, str], None]) -> None:
    session("c1", "x = [1, 2]")
    session("c2", "x.append(3)")
    run = case.project.store.runs(limit=1)[0].id
    session("c3", f"answer = get_ipython().run_line_magic('mlops', 'verify {run[7:23]} --env current')")
    session("c4", "said = answer.text(); ok = answer.ok")
    session("c5", "print(said)")
    results = list(case.project.store.records(CheckResult))
    assert [(one.check, one.passed, one.summary) for _, _, one in results] == [
        ("reproducible", True, "2 cells identical")
    ]


def test_a_cell_with_a_masked_secret_is_not_run_again(case: Case) -> None:
    case.ran("token = 'ghp_" + "a1B2" * 9 + "'", "x = 1")
    with pytest.raises(CouldNot, match=r"secrets are masked in the source of cell c1"):
        case.again()


def test_a_run_that_takes_too_long_is_no_verdict(case: Case) -> None:
    (case.folder / ".gitignore").write_text("gate\n")
    gate = case.folder / "gate"
    gate.write_text("open")
    case.ran("import os, time", "while not os.path.exists('gate'):\n    time.sleep(0.05)")
    gate.unlink()
    with pytest.raises(CouldNot, match=r"was not run to its end"):
        case.again(timeout=3.0)


def test_a_verdict_is_a_gate_for_exactly_that_version(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    cells = (
        "from sklearn.linear_model import LinearRegression\nimport pandas as pd\n"
        "X = pd.DataFrame({'a': [1.0, 2.0, 4.0]})",
        "model = LinearRegression().fit(X, [1.0, 2.0, 3.5])",
        "%mlops register model line --data X",
    )
    run = case.ran(*cells)
    asked = [one.ended.sources for one in case.project.store.cell_runs(run=run) if one.ended]
    assert asked == [[], [], []]  # our own index is none of a cell's sources
    assert cli._shell(["check", "line/1", "-g", "reproducible"]) == 1
    assert "it was never verified" in capsys.readouterr().out
    assert cli._shell(["verify", "line/1", "--env", "current"]) == 0
    capsys.readouterr()
    assert cli._shell(["check", "line/1", "-g", "reproducible"]) == 0
    assert "3 cells identical" in capsys.readouterr().out
    case.ran(*cells[:1], cells[1].replace("3.5", "3.6"), cells[2])
    assert cli._shell(["check", "line/2", "-g", "reproducible"]) == 1
    assert cli._shell(["check", "line/1", "-g", "reproducible"]) == 0


# -- sessions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(case: Case) -> Iterator[Callable[[str, str], None]]:
    """A person's kernel: runs a cell by its id."""
    from jupyter_client.manager import start_new_kernel

    os.environ["JUPYTER_MLOPS_NOTEBOOK"] = str(case.folder / "a.ipynb")
    manager, client = start_new_kernel(cwd=str(case.folder))
    del os.environ["JUPYTER_MLOPS_NOTEBOOK"]

    def run(cell: str, source: str) -> None:
        client.session.metadata = {"cellId": cell}
        reply = client.execute_interactive(source, timeout=120, output_hook=lambda _: None)
        assert reply["content"]["status"] in ("ok", "error")

    try:
        run("c0", "%load_ext jupyter_mlops")
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        found = case.project.store.runs(limit=1)
        case.run = found[0].id if found else None


def test_cells_that_ran_out_of_order_are_named_where_the_notebook_is_asked_about(
    case: Case, session: Callable[[str, str], None]
) -> None:
    case.write("x = 1", "y = x + 1", "x = 10")
    session("c1", "x = 1")
    session("c3", "x = 10")
    session("c2", "y = x + 1")
    case.run = case.project.store.runs(limit=1)[0].id
    assert case.again().verdict == "identical"
    found = case.again(order="notebook")
    assert found.first is not None
    assert found.first.cell == "c2"
    assert named(found) == [("order", "cell c2 used x as cell c3 had made it, which stands after it", True)]


def test_a_cell_that_was_run_once_more_afterwards_is_named(case: Case, session: Callable[[str, str], None]) -> None:
    case.write("x = 2", "y = x + 1")
    session("c1", "x = 1")
    session("c2", "y = x + 1")
    session("c1", "x = 2")
    case.run = case.project.store.runs(limit=1)[0].id
    found = case.again(order="notebook")
    assert found.first is not None
    assert found.first.cell == "c2"
    assert named(found) == [("order", "cell c2 used x as cell c1 had made it, which was run once more", True)]


# -- an environment of its own ---------------------------------------------------------------------------------------


def test_a_run_verifies_identical_in_an_environment_made_from_its_lock(index: None, case: Case) -> None:
    with_files(case)
    case.ran(*ALL)
    found = case.again(env="new")
    assert found.environment == "re-created"
    assert {one.verdict for one in found.cells} == {"identical"}, [one.differences for one in found.cells]
    assert found.why == "as asked for"


def test_where_a_package_has_another_version_here_an_environment_is_made_with_the_recorded_one(
    index: None, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    done = uv("pip", "install", "-q", "--target", str(site), "iniconfig==2.0.0")
    assert done.returncode == 0, done.stderr
    with monkeypatch.context() as before:
        before.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        before.syspath_prepend(str(site))
        case.ran("import iniconfig\nfrom importlib.metadata import version", "v = version('iniconfig')\nprint(v)")
    found = case.again(env="auto")
    assert found.environment == "re-created"
    assert "and was 2.0.0" in found.why
    assert {one.verdict for one in found.cells} == {"identical"}, [one.differences for one in found.cells]
    found = case.again(env="current")
    assert found.first is not None
    assert [(kind, proved) for kind, what, proved in named(found) if "iniconfig 2.0.0 →" in what] == [("package", True)]
