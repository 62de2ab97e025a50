"""Whether a notebook as it stands would make what is in memory: told from a real shell's record, with reasons."""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from jupyter_mlops import cli
from jupyter_mlops.lineage.matching import Cell
from jupyter_mlops.lineage.staleness import Standing, staleness
from jupyter_mlops.lineage.volatile import Use, uses_in


def stand(page: Any) -> dict[str, Any]:
    return json.loads(page.say("%mlops status").json())["notebook"]


def found(page: Any) -> tuple[str, dict[str, set[str]]]:
    """The answer, and the kinds of findings by cell; what belongs to no cell stands under an empty name."""
    answer = stand(page)
    kinds: dict[str, set[str]] = {}
    for finding in answer["findings"]:
        kinds.setdefault(finding.get("id", ""), set()).add(finding["kind"])
    return answer["reproduces"], kinds


def reasons(page: Any, cell: str) -> str:
    return "\n".join(one["reason"] for one in stand(page)["findings"] if one.get("id", "") == cell)


def test_a_notebook_run_from_the_top_makes_what_is_in_memory(page: Any) -> None:
    page.all(a="xs = [1, 2]", b="xs.append(3)", c="total = sum(xs)", d="# only words", e="print(total)")
    assert found(page) == ("yes", {})


def test_a_comment_or_layout_is_no_edit(page: Any) -> None:
    page.all(a="x = 1", b="y = x + 1")
    page.write(b="y = (x\n     + 1)  # the same")
    assert found(page) == ("yes", {})


def test_an_input_that_changed_since_makes_a_cell_stale_and_names_who(page: Any) -> None:
    page.all(a="x = 1", b="y = x + 1", c="z = y * 2")
    page.write(a="x = 5")
    page.run("a")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds == {"b": {"stale"}, "c": {"built"}}
    assert reasons(page, "b") == "`x` was changed since it ran, by [5]"
    assert "built on [3] (`y`)" in reasons(page, "c")


def test_a_rerun_with_the_same_result_makes_nothing_stale(page: Any) -> None:
    page.all(a="import numpy as np\nx = np.arange(5)", b="y = x + 1")
    page.run("a")
    assert found(page) == ("yes", {})


def test_a_cell_that_ran_before_one_above_it_is_out_of_order(page: Any) -> None:
    page.write(a="x = 1", b="x = x + 1", c="y = x")
    page.run("a", "c", "b")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds == {"c": {"order"}}
    assert reasons(page, "c") == "ran before [4], which stands above it and makes `x`"


def test_a_cell_that_reads_what_a_cell_below_made_is_out_of_order(page: Any) -> None:
    page.write(a="y = x", b="x = 1")
    page.run("b", "a")
    verdict, kinds = found(page)
    assert (verdict, kinds) == ("no", {"a": {"order"}})
    assert "made by [2] below it" in reasons(page, "a")


def test_a_change_that_a_cell_below_made_and_the_cell_saw_is_out_of_order(page: Any) -> None:
    page.all(a="xs = [1]", b="n = len(xs)", c="xs.append(2)")
    page.run("b")
    assert found(page) == ("no", {"b": {"order"}})
    assert "as [4], which stands below it" in reasons(page, "b")


@pytest.fixture(autouse=True)
def _settings_that_cells_change() -> Iterator[None]:
    """These cells run in the tests' own process: what they set up there is to be gone afterwards."""
    with decimal.localcontext(), np.printoptions():
        yield
    vars(math).pop("tau2", None)


OUT_OF_ORDER = {
    "a name for another module": (
        {"a": "import math as m", "b": "import cmath as m", "c": "x = m.sqrt(4)"}, "no", {"c": {"order"}}
    ),
    "the same module once more": ({"a": "import math as m", "b": "import math as m", "c": "x = m.sqrt(4)"}, "yes", {}),
    "a precision": (
        {"a": "import decimal", "b": "decimal.getcontext().prec = 5", "c": "x = decimal.Decimal(1) / 3"},
        "cannot tell", {"c": {"order"}},
    ),
    "a working directory": (
        {"a": "import os; from pathlib import Path; os.makedirs('sub')\n"
              "Path('sub/x').write_text('1'); Path('x').write_text('2');",
         "b": "os.chdir('sub')", "c": "x = Path('x').read_text()"},
        "cannot tell", {"c": {"order"}},
    ),
    "a module's variable": (
        {"a": "import math", "b": "math.tau2 = 7", "c": "x = getattr(math, 'tau2', 0)"}, "cannot tell",
        {"c": {"order"}},
    ),
    "how numbers are shown": (
        {"a": "import numpy as np", "b": "np.set_printoptions(precision=3)", "c": "x = np.ones(2)"}, "yes", {}
    ),
    "an iterator": (
        {"a": "it = iter([1, 2, 3])", "b": "x = next(it)", "c": "y = next(it)"}, "cannot tell",
        {"b": {"hidden"}, "c": {"hidden"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OUT_OF_ORDER)
def test_what_passes_between_cells_by_no_value_has_its_order_too(
    page: Any, name: str, project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project_folder)  # and back at the end
    cells, verdict, kinds = OUT_OF_ORDER[name]
    page.write(**cells)
    page.run("a", "c", "b")
    assert found(page) == (verdict, kinds)
    if "os.chdir" not in cells["b"]:  # which is as it was left when the first cell runs again
        page.run("a", "b", "c")
        assert found(page) == ("yes", {})


def test_what_was_set_up_by_a_cell_that_is_gone_is_said(page: Any) -> None:
    page.write(a="import decimal", b="decimal.getcontext().prec = 5", c="x = decimal.Decimal(1) / 3")
    page.run("a", "b", "c")
    del page.cells["b"]
    page.write()
    verdict, kinds = found(page)
    assert (verdict, kinds) == ("cannot tell", {"c": {"order"}})
    assert "a cell that is no longer there had set it up" in reasons(page, "c")


def test_a_cell_below_that_changes_what_was_read_before_it_is_in_order(page: Any) -> None:
    page.all(a="xs = [1]", b="n = len(xs)", c="xs.append(2)", d="m = len(xs)")
    assert found(page) == ("yes", {})


def test_a_cell_run_twice_on_its_own_result_is_named(page: Any) -> None:
    page.all(a="n = 0", b="n += 1", c="m = n")
    page.run("b")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds["b"] == {"order"}
    assert "ran again on what it had left" in reasons(page, "b")


def test_a_cell_run_twice_to_the_same_end_is_no_matter(page: Any) -> None:
    page.all(a="d = {}", b="d['k'] = 1", c="n = len(d)")
    page.run("b")
    _, kinds = found(page)
    # it saw another d than from the top, and left the same: the first of its runs tells what it makes there
    assert kinds == {"b": {"order"}}
    page.run("a", "b", "c")
    assert found(page) == ("yes", {})


def test_values_of_an_edited_cell_are_named(page: Any) -> None:
    page.all(a="x = 1", b="y = x")
    page.write(a="x = 2")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds == {"a": {"edited"}, "b": {"built"}}
    assert "`x` in memory comes from what it was (`x = 1`)" in reasons(page, "a")


def test_values_of_a_deleted_cell_are_named_and_so_is_who_reads_them(page: Any) -> None:
    page.all(a="x = 1", b="y = x")
    page.delete("a")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds == {"b": {"hidden"}, "": {"deleted"}}
    assert "a cell that is no longer there ([2] `x = 1`)" in reasons(page, "b")


def test_a_name_that_another_cell_makes_now_does_not_hide_who_made_it(page: Any) -> None:
    page.all(a="xs = [1]", b="xs.append(2)", c="n = len(xs)")
    page.delete("b")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert kinds["c"] == {"hidden"}
    assert "`xs.append(2)`" in reasons(page, "c")
    assert "[2] has the last word" in reasons(page, "")


def test_a_cell_that_was_cut_and_pasted_is_the_same_cell(page: Any) -> None:
    page.all(a="x = 1", b="y = x")
    del page.cells["b"]
    page.write(pasted="y = x")
    assert found(page) == ("yes", {})


def test_a_notebook_without_ids_is_matched_by_its_text(page: Any) -> None:
    page.all(a="x = 1", b="y = x")
    page.save(ids=False)
    assert stand(page)["reproduces"] == "yes"
    page.cells["a"] = "x = 2"
    page.save(ids=False)
    assert stand(page)["reproduces"] == "no"


def test_a_cell_that_never_ran_is_named(page: Any) -> None:
    page.all(a="x = 1")
    page.write(b="fresh = 2", c="x = 3")
    verdict, kinds = found(page)
    assert verdict == "cannot tell"
    assert kinds == {"b": {"never run"}, "c": {"never run"}}
    assert "touches nothing" in reasons(page, "b")
    assert "what it does to `x` is not known" in reasons(page, "c")


def test_a_cell_that_failed_stops_a_run_from_the_top(page: Any) -> None:
    page.all(a="x = 1", b="1 / 0", c="y = x")
    verdict, kinds = found(page)
    assert (verdict, kinds) == ("no", {"b": {"failed"}})
    assert "ZeroDivisionError" in reasons(page, "b")


def test_a_deleted_variable_that_is_still_read_is_hidden_state(page: Any) -> None:
    page.write(a="x = 1", b="del x", c="y = x")
    page.run("a", "b", "a", "c")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert "hidden" in kinds["c"] or "order" in kinds["c"]


def test_a_cell_that_would_delete_what_is_not_there_is_named(page: Any) -> None:
    page.all(a="x = 1", b="del x")
    assert found(page) == ("yes", {})
    page.write(late="del x", d="del x")
    page.cells["c"] = "z = 1"
    page.run("c")
    page.save()
    verdict, kinds = found(page)
    assert verdict == "cannot tell"
    assert kinds["late"] == {"hidden", "never run"}
    page.cells = {"early": "del x", **{name: page.cells[name] for name in ("load", "a", "b")}}
    page.run("a", "early", "a", "b")
    page.save()
    assert found(page)[0] == "no"
    assert "no cell above it leaves there" in reasons(page, "early")


def test_a_file_that_changed_on_disk_is_named(page: Any, project_folder: Path) -> None:
    (project_folder / "data.txt").write_text("one")
    page.all(a="with open('data.txt') as f: text = f.read()", b="n = len(text)")
    assert found(page) == ("yes", {})
    (project_folder / "data.txt").write_text("another")
    verdict, kinds = found(page)
    assert (verdict, kinds) == ("no", {"a": {"stale"}, "b": {"built"}})
    assert reasons(page, "a") == "`data.txt` has changed on disk since it ran, by no recorded cell"
    (project_folder / "data.txt").write_text("one")
    assert found(page) == ("yes", {})


def test_a_file_that_a_later_cell_wrote_is_named_with_the_cell(page: Any, project_folder: Path) -> None:
    (project_folder / "data.txt").write_text("one")
    page.all(a="with open('data.txt') as f: text = f.read()", b="with open('data.txt', 'w') as f: f.write('two')")
    assert found(page)[0] == "no"
    assert reasons(page, "a") == "`data.txt` has changed on disk since it ran, by [3]"


def test_a_file_that_the_notebook_writes_itself_is_followed(page: Any) -> None:
    page.all(a="with open('out.txt', 'w') as g: n = g.write('one')", b="with open('out.txt') as f: text = f.read()")
    assert found(page) == ("yes", {})
    page.write(a="with open('out.txt', 'w') as g: n = g.write('two')")
    page.run("a")
    assert reasons(page, "b") == "`out.txt` was changed since it ran, by [5]"


def test_a_module_that_changed_on_disk_is_named_with_what_comes_from_it(page: Any, project_folder: Path) -> None:
    (project_folder / "own_module_of_a_test.py").write_text("def double(x):\n    return 2 * x\n")
    page.all(a="import math\nfrom own_module_of_a_test import double", b="x = double(2)", c="y = math.pi")
    assert found(page) == ("yes", {})
    (project_folder / "own_module_of_a_test.py").write_text("def double(x):\n    return 3 * x\n")
    verdict, kinds = found(page)
    assert (verdict, kinds) == ("no", {"a": {"stale"}, "b": {"built"}})
    assert "memory has the old one" in reasons(page, "a")


def test_unseeded_randomness_is_named_and_seeded_is_not(page: Any) -> None:
    page.all(a="import random\nimport numpy as np", b="x = random.random()")
    assert found(page) == ("no", {"b": {"randomness"}})
    page.all(a="import random\nimport numpy as np\nrandom.seed(3)", b="x = random.random()")
    assert found(page) == ("yes", {})
    # a seed of one generator is none of another
    page.all(c="y = np.random.rand()")
    assert found(page) == ("no", {"c": {"randomness"}})


def test_a_library_that_draws_while_it_is_loaded_is_a_note(page: Any, project_folder: Path) -> None:
    (project_folder / "drawing_module.py").write_text("import random\nrandom.random()\n")
    page.all(a="import random", b="import drawing_module", c="x = 1")
    assert found(page) == ("yes", {"b": {"randomness"}})


def test_a_seed_inside_a_function_counts_from_its_call_on(page: Any) -> None:
    page.all(
        a="import random", b="def fix():\n    random.seed(1)", c="x = random.random()", d="fix()\ny = random.random()"
    )
    assert found(page) == ("no", {"c": {"randomness"}})


def test_seeded_draws_in_another_order_than_the_cells_are_named(page: Any) -> None:
    page.write(a="import random\nrandom.seed(3)", b="x = random.random()", c="y = random.random()")
    page.run("a", "b", "c")
    assert found(page) == ("yes", {})
    page.run("b")
    verdict, kinds = found(page)
    assert verdict == "no"
    assert "randomness" in kinds["b"]


def test_time_network_and_environment_are_named_also_through_functions(page: Any) -> None:
    page.all(
        a="import os, time\nfrom datetime import datetime as dt",
        b="def stamp():\n    return inner()\ndef inner():\n    return dt.now()",
        c="when = stamp()", d="home = os.environ.get('HOME')", e="print(time.time())", f="t = time.sleep(0)",
    )  # fmt: skip
    verdict, kinds = found(page)
    assert verdict == "cannot tell"
    assert kinds == {"c": {"time"}, "d": {"environment"}, "e": {"time"}}
    assert reasons(page, "c") == "takes the time: `datetime.datetime.now`, through `inner`"


def test_what_text_cannot_tell_is_a_gap_of_the_answer(page: Any) -> None:
    page.all(a="code = 'x = 1'", b="exec(code)")
    assert found(page) == ("cannot tell", {"b": {"gap"}})


def test_what_was_there_before_recording_cannot_be_told(page: Any) -> None:
    page.shell.user_ns["early"] = [1]
    page.all(a="y = len(early)")
    assert found(page)[0] == "cannot tell"
    assert "`early`, which no cell above it makes" in reasons(page, "a")


def test_a_value_without_a_digest_that_was_made_anew_cannot_be_told(page: Any) -> None:
    page.all(a="it = iter([1, 2])", b="kept = it")
    assert found(page)[0] == "yes"
    page.run("a")
    assert found(page)[0] == "cannot tell"


def test_the_answer_in_a_shell_is_of_the_last_session_and_ends_with_0(page: Any, project_folder: Path) -> None:
    page.all(a="x = 1", b="y = x")
    page.write(a="x = 2")
    page.record()
    ran = CliRunner().invoke(cli.mlops, ["status", "page.ipynb", "--json"], standalone_mode=False)
    assert ran.exception is None
    asked = cli.call(["status", str(page.path)], cli.Place()).data["notebook"]
    assert asked["reproduces"] == "no"
    assert asked["findings"] == page.say("%mlops status").data["notebook"]["findings"]


def test_asking_leaves_no_trace_of_what_it_reads(page: Any, project_folder: Path) -> None:
    (project_folder / "data.txt").write_text("one")
    page.all(a="with open('data.txt') as f: text = f.read()")
    page.say("%mlops status")
    assert page.record()[-1].files_read == []


def test_secrets_of_a_cell_are_not_in_the_answer_and_are_no_edit(page: Any) -> None:
    secret = "hunter2" + "x" * 20
    page.all(a=f"password = {secret!r}", b="n = 1")
    text = page.say("%mlops status").json()
    assert secret not in text
    assert json.loads(text)["notebook"]["reproduces"] in ("yes", "cannot tell")


def test_what_a_person_reads_names_cells_and_reasons(page: Any) -> None:
    page.all(a="x = 1", b="y = x + 1", c="z = y * 2")
    page.write(a="x = 5")
    page.run("a")
    lines = page.say("%mlops status").text(columns=120).splitlines()
    at = lines.index("[3]  y = x + 1")
    assert lines[at + 1] == "  ✗ stale        `x` was changed since it ran, by [5]"
    assert "built on these, and so not what the notebook says: [4]" in lines
    assert any(line.startswith("reproduces") and " no: " in line for line in lines)


def test_an_empty_session_says_nothing() -> None:
    assert staleness([Cell("a", "x = 1")], []).verdict == "cannot tell"
    assert staleness([], []) == Standing(verdict="cannot tell")


@pytest.mark.parametrize(
    ("cells", "uses"),
    [
        (["import time as t", "t.time()"], [("time", "time.time", "")]),
        (["time.time()"], []),
        (["import os", "os.environ['X'] = '1'"], []),
        (["import os", "os.environ['X']"], [("environment", "os.environ", "")]),
        (["from datetime import *", "datetime.now()"], [("time", "datetime.datetime.now", "")]),
        (["import time", "time.strftime('%Y')"], [("time", "time.strftime", "")]),
        (["import time", "time.strftime('%Y', moment)"], []),
        (["import pandas as pd", "pd.read_csv('https://example.org/a.csv')"], [("network", "pandas.read_csv", "")]),
        (["import pandas as pd", "pd.read_csv('a.csv')"], []),
        (["import requests", "requests.get(url)"], [("network", "requests.get", "")]),
        (["import numpy as np", "np.random.default_rng()"],
         [("randomness", "numpy.random.default_rng() without a seed", "")]),
        (["import numpy as np", "np.random.default_rng(3)"], []),
        (["import uuid", "%%time\nuuid.uuid4()"], [("randomness", "uuid.uuid4", "")]),
        (["!curl -O https://example.org"], [("network", "!curl", "")]),
        (["%env HOME"], [("environment", "%env HOME", "")]),
        (["%env A=1"], []),
        (["import time", "class C:\n  def m(self): return time.time()", "c = C()"], [("time", "time.time", "C")]),
        (["import time", "f = lambda: time.time()", "g = lambda: f()", "g()"], [("time", "time.time", "f")]),
        (["import time", "def f(now=time.time()): pass"], [("time", "time.time", "")]),
        (["import datetime", "datetime.datetime(2020, 1, 1)"], []),
    ],
)  # fmt: skip
def test_uses_of_the_world_are_read_off_the_text_where_an_import_tells(cells: list[str], uses: list[Any]) -> None:
    assert list(uses_in(cells)[-1]) == [Use(*one) for one in uses]


@pytest.mark.parametrize("text", ["x =", "\0 time", "%%html\n<time>", "!" * 100, "(" * 5000 + "time", "time." * 5000])
def test_any_text_gets_an_answer(text: str) -> None:
    assert uses_in(["import time", text])[1] == ()
    assert staleness([Cell("", text)], []).verdict in ("no", "cannot tell")


def test_the_parameters_of_a_headless_run_stand_where_they_were_injected(project_folder: Path) -> None:
    import nbformat

    from jupyter_mlops.pipelines import run_notebook
    from jupyter_mlops.project import Project
    from jupyter_mlops.standing import stand

    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell("rate = 1", id="given", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("total = rate * 2", id="total"),
    ]
    nbformat.write(book, project_folder / "book.ipynb")
    project = Project.open(project_folder)
    run_notebook(project_folder / "book.ipynb", parameters={"rate": 5}, project=project)
    found = stand(project, project_folder / "book.ipynb")
    assert [cell.id for cell in found.cells] == ["given", "injected-parameters", "total"]
    assert found.standing is not None
    assert found.standing.verdict == "yes", found.standing.findings
    book.cells[1].source = "total = rate * 3"
    nbformat.write(book, project_folder / "book.ipynb")
    edited = stand(project, project_folder / "book.ipynb").standing
    assert edited is not None
    assert {finding.kind for finding in edited.findings} == {"edited"}
