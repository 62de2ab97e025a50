"""Contract suites for what other packages can bring: subclass one in a test module and fill in its values.

They are plain classes of pytest tests. Ours are held to the same ones.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget, Provider, fingerprint
from jupyter_mlops.fingerprints.providing import use
from jupyter_mlops.pipelines.steps import PERFORM, perform
from jupyter_mlops.project import Project
from jupyter_mlops.registry import Format, FormatRefused, LoadRefused, ModelDamaged
from jupyter_mlops.targets import Event, Handle, OnEvent, Outcome, Step, Target


class FingerprintSuite:
    """What a fingerprint has to keep to, whoever provides it.

    Examples
    --------
    ::

        class TestRaster(FingerprintSuite):
            provider = RasterProvider()

            def values(self):
                return [Raster([1, 2]), Raster([2, 1]), Raster([])]
    """

    provider: Provider | None = None
    """The provider under test; None to test types that are known without one."""

    def values(self) -> list[Any]:
        """Values of which no two have equal content; made anew, but equal, at each call."""
        raise NotImplementedError

    def setup_method(self) -> None:
        """Take the provider into use."""
        if self.provider is not None:
            use(self.provider)

    def test_every_value_has_a_digest(self) -> None:
        for value in self.values():
            found = fingerprint(value)
            assert found.digest is not None, found.why

    def test_equal_content_has_an_equal_digest(self) -> None:
        assert [fingerprint(value).digest for value in self.values()] == [
            fingerprint(value).digest for value in self.values()
        ]

    def test_a_copy_has_an_equal_digest(self) -> None:
        for value in self.values():
            assert fingerprint(copy.deepcopy(value)).digest == fingerprint(value).digest

    def test_other_content_has_another_digest(self) -> None:
        values = self.values()
        assert len({fingerprint(value).digest for value in values}) == len(values)

    def test_a_digest_does_not_change_the_value(self) -> None:
        for value in self.values():
            assert fingerprint(value).digest == fingerprint(value).digest

    def test_a_value_counts_inside_a_container(self) -> None:
        values = self.values()
        assert len({fingerprint([value]).digest for value in values}) == len(values)

    def test_work_that_is_called_off_ends_without_a_digest(self) -> None:
        budget = Budget()
        budget.cancel()
        for value in self.values():
            assert fingerprint([value] * 600, budget=budget).digest is None


class FormatSuite:
    """What a way to keep models has to keep to, whoever provides it.

    Examples
    --------
    ::

        class TestRules(FormatSuite):
            format = rules.FORMAT

            def models(self):
                return [Rules(["a"]), Rules(["b"])]

            def answers(self, model):
                return model.predict([1, 2, 3])
    """

    format: Format
    """The format under test; it has both `dump` and `load`."""

    def models(self) -> list[Any]:
        """Models of which no two answer alike; made anew, but equal, at each call."""
        raise NotImplementedError

    def answers(self, model: Any) -> Any:
        """What a model answers to some fixed input, as a value that ``==`` compares: a list, a text, bytes."""
        raise NotImplementedError

    def dumped(self, model: Any) -> bytes:
        """The bytes of a model."""
        assert self.format.dump is not None
        data = self.format.dump(model)
        assert type(data) is bytes
        return data

    def loaded(self, data: bytes) -> Any:
        """The model of some bytes."""
        assert self.format.load is not None
        return self.format.load(data)

    def test_a_loaded_model_answers_what_the_dumped_one_did(self) -> None:
        models = self.models()
        assert len({repr(self.answers(model)) for model in models}) == len(models) > 1
        for model in models:
            assert self.answers(self.loaded(self.dumped(model))) == self.answers(model)

    def test_a_loaded_model_can_be_dumped_again(self) -> None:
        for model in self.models():
            again = self.loaded(self.dumped(self.reborn(self.loaded(self.dumped(model)))))
            assert self.answers(again) == self.answers(model)

    def reborn(self, loaded: Any) -> Any:
        """What `dump` takes, of what `load` gives; the same thing, unless overridden."""
        return loaded

    def test_dumping_does_not_change_the_model(self) -> None:
        for model in self.models():
            before = self.answers(model)
            self.dumped(model)
            assert self.answers(model) == before

    def test_what_was_dumped_looks_like_it_and_can_be_kept(self) -> None:
        for model in self.models():
            data = self.dumped(model)
            assert self.format.looks(data[:4096])
            if self.format.check is not None:
                self.format.check(data)

    def test_what_is_no_such_model_is_refused(self) -> None:
        for other in (object(), None, 1.5, [1, 2]):
            with pytest.raises(FormatRefused):
                self.dumped(other)

    def test_a_pickle_is_refused_and_never_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            mark = Path(folder) / "ran"
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                data = pickle.dumps(_Leaves(mark), protocol=protocol)
                assert protocol < 2 or not self.format.looks(data)
                with pytest.raises((ModelDamaged, LoadRefused)):
                    self.loaded(data)
            assert not mark.exists()

    def test_damaged_bytes_are_refused(self) -> None:
        """Not asked of a fragile format, whose library is not given damaged bytes."""
        if self.format.fragile:
            return
        noise = random.Random(0).randbytes(3000)  # noqa: S311 - no secret
        for model in self.models():
            data = self.dumped(model)
            for damaged in (b"", data[:1], data[: len(data) // 2], data[:-1], noise, data[:8] + noise):
                with pytest.raises((ModelDamaged, LoadRefused)):
                    self.loaded(damaged)

    def test_its_name_and_suffixes_are_its_own(self) -> None:
        assert self.format.name
        assert self.format.name not in {"skops", "pickle", "joblib"}
        for suffix in self.format.suffixes:
            assert suffix.startswith(".")
            assert suffix == suffix.lower()
            assert suffix not in {".pkl", ".pickle", ".p", ".joblib", ".dill", ".pt", ".pth", ".ckpt"}


class _Leaves:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (self.mark,)


def perish(step: Step, project: Project, on_event: OnEvent) -> Outcome:
    """Perform a step, and have this process killed as soon as the notebook has written the file ``mark``."""
    import signal

    def watch() -> None:
        while not Path(step.parameters["mark"]).exists() or not Path(step.parameters["mark"]).read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return perform(step, project, on_event)


def write_notebook(path: Path, *sources: str) -> str:
    """Write a notebook of cells, the first of which declares parameters; its name."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell-{place}", "metadata": {} if place else {"tags": ["parameters"]},
         "source": source, "outputs": [], "execution_count": None}
        for place, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(book))
    return path.name


class TargetSuite:
    """What a target has to keep to, wherever its steps run.

    The suite runs real notebooks in a project of its own, with a target that must be able to run two steps at a time.
    The steps' kernels must run on this machine: whether they are gone is looked up among its processes.

    Examples
    --------
    ::

        class TestCluster(TargetSuite):
            def open(self, project):
                return ClusterTarget("cluster", LocalCluster(2))
    """

    limit = 120.0
    """Seconds after which a step that should have ended is taken for one that hangs."""

    def open(self, project: Project) -> Target:
        """The target under test."""
        raise NotImplementedError

    @pytest.fixture
    def project(self, tmp_path: Path) -> Project:
        """A project of its own."""
        return Project.open(tmp_path)

    @pytest.fixture
    def target(self, project: Project) -> Iterator[Target]:
        """The target under test, closed afterwards."""
        with self.open(project) as target:
            yield target

    @pytest.fixture
    def notebook(self, project: Project) -> Callable[..., str]:
        """Write a notebook of cells, the first of which declares parameters."""

        def write(name: str, *sources: str) -> str:
            return write_notebook(project.root / name, *sources)

        return write

    def step(self, name: str, notebook: str, **rest: Any) -> Step:
        """A step of a notebook, with an output of its own."""
        return Step(name=name, notebook=notebook, output=f"{name}.out.ipynb", **rest)

    def done(self, handle: Handle) -> Outcome:
        """The outcome of a step that must be done."""
        outcome = handle.result(self.limit)
        assert outcome.ok, outcome.why
        return outcome

    def gone(self, *pids: int) -> None:
        """See that processes end."""
        import psutil

        ends = time.monotonic() + self.limit
        for pid in pids:
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < ends, f"process {pid} still runs"
                time.sleep(0.05)

    def there(self, path: Path, handle: Handle) -> str:
        """Wait until a notebook has written a file."""
        ends = time.monotonic() + self.limit
        while not path.is_file() or not path.read_text():
            assert not handle.done(), handle.result().why
            assert time.monotonic() < ends, f"{path.name} was not written"
            time.sleep(0.05)
        return path.read_text()

    def test_a_step_gives_its_output_its_metrics_and_its_record(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        book = notebook(
            "a.ipynb", "depth: int = 1", "from jupyter_mlops import log_metric\nlog_metric('twice', depth * 2)\ndepth"
        )
        outcome = self.done(target.submit(self.step("a", book, parameters={"depth": 21}), project, PERFORM))
        assert (outcome.status, outcome.metrics, outcome.attempts) == ("done", {"twice": 42}, 1)
        assert outcome.output == "a.out.ipynb"
        cells = json.loads((project.root / outcome.output).read_text())["cells"]
        assert cells[-1]["outputs"][-1]["data"]["text/plain"] in ("21", ["21"])
        assert outcome.run is not None
        run = project.store.run(outcome.run)
        assert (run.status, run.started.notebook, run.started.parameters) == ("done", "a.ipynb", {"depth": 21})
        recorded = project.store.cell_runs(run=outcome.run, newest_first=False)
        assert [one.started.cell for one in recorded] == ["cell-0", "injected-parameters", "cell-1"]
        assert outcome.cells == 3

    def test_a_step_is_a_part_of_the_run_it_names(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        book = notebook("a.ipynb", "x = 1")
        first = self.done(target.submit(self.step("a", book), project, PERFORM))
        second = self.done(target.submit(self.step("b", book, parent=first.run), project, PERFORM))
        assert second.run is not None
        assert project.store.run(second.run).started.parent == first.run

    def test_a_secret_is_on_no_command_line_in_no_variable_and_in_no_file(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        import psutil

        token = "q7Zk" + os.urandom(12).hex()
        mark, go = tmp_path / "mark", tmp_path / "go"
        book = notebook(
            "a.ipynb", "token = ''\nmark = ''\ngo = ''",
            "import os, time\nopen(mark, 'w').write('x')\nwhile not os.path.exists(go): time.sleep(0.05)",
            "from jupyter_mlops import log_metric\nlog_metric('length', len(token))",
        )  # fmt: skip
        step = self.step("a", book, parameters={"mark": str(mark), "go": str(go)}, secrets={"token": token})
        handle = target.submit(step, project, PERFORM)
        self.there(mark, handle)
        for process in psutil.process_iter(["cmdline", "environ"]):
            assert token not in f"{process.info}", process.info["cmdline"]
        go.touch()
        assert self.done(handle).metrics == {"length": len(token)}
        for path in project.root.rglob("*"):
            assert not path.is_file() or token.encode() not in path.read_bytes(), path

    def test_each_cell_is_told_of_as_it_begins_and_ends(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        heard: list[Event] = []
        step = self.step("a", notebook("a.ipynb", "x = 1", "x", ""))
        outcome = self.done(target.submit(step, project, PERFORM, heard.append))
        assert [(one.kind, one.cell, one.cells, one.id) for one in heard if one.kind != "note"] == [
            ("started", 0, 0, ""),
            ("cell began", 1, 2, "cell-0"), ("cell ended", 1, 2, "cell-0"),
            ("cell began", 2, 2, "cell-1"), ("cell ended", 2, 2, "cell-1"),
            ("ended", 0, 0, ""),
        ]  # fmt: skip
        assert {one.step for one in heard} == {"a"}
        assert {one.run for one in heard if one.kind != "note"} == {outcome.run}
        assert heard[-1].text == "done"

    def test_what_cells_print_is_told_while_they_run(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        book = notebook(
            "a.ipynb", "go = ''",
            "import os, time\nprint('begun')\nwhile not os.path.exists(go): time.sleep(0.05)\nprint('over', end='')\n7",
        )  # fmt: skip
        heard: list[Event] = []
        step = self.step("a", book, parameters={"go": str(go)}, live=True)
        handle = target.submit(step, project, PERFORM, heard.append)
        ends = time.monotonic() + self.limit
        while not any(one.kind == "output" for one in heard):
            assert not handle.done(), handle.result().why
            assert time.monotonic() < ends, "nothing was told while the cell ran"
            time.sleep(0.05)
        go.touch()
        self.done(handle)
        said = [one for one in heard if one.kind == "output"]
        assert "".join(one.text for one in said) == "begun\nover\n7\n"
        assert {(one.step, one.attempt, one.cell, one.cells) for one in said} == {("a", 1, 3, 3)}

    def test_a_listener_that_fails_breaks_nothing(
        self, target: Target, project: Project, notebook: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        def listen(_event: Event) -> None:
            raise ValueError("I do not listen")

        self.done(target.submit(self.step("a", notebook("a.ipynb", "x = 1")), project, PERFORM, listen))
        assert "I do not listen" in caplog.text

    def test_a_cell_that_fails_is_named(self, target: Target, project: Project, notebook: Callable[..., str]) -> None:
        step = self.step("a", notebook("a.ipynb", "x = 1", "1 / 0", "x"))
        outcome = target.submit(step, project, PERFORM).result(self.limit)
        assert (outcome.status, outcome.cells, outcome.attempts) == ("failed", 2, 1)
        assert "cell 2" in outcome.error
        assert "ZeroDivisionError" in outcome.error
        assert outcome.run is not None
        assert project.store.run(outcome.run).status == "failed"
        assert (project.root / outcome.output).is_file()

    def test_what_can_not_be_run_is_refused_and_not_tried_again(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        step = self.step("a", notebook("a.ipynb", "depth = 1"), parameters={"deep": 1}, retries=2)
        outcome = target.submit(step, project, PERFORM).result(self.limit)
        assert (outcome.status, outcome.run, outcome.attempts) == ("refused", None, 1)
        assert "unknown parameter deep" in outcome.cause
        missing = target.submit(self.step("b", "none.ipynb"), project, PERFORM).result(self.limit)
        assert missing.status == "refused"
        assert "none.ipynb" in missing.cause
        assert project.store.runs() == []

    def test_a_cell_beyond_its_time_is_ended(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        step = self.step("a", notebook("a.ipynb", "x = 1", "import time; time.sleep(600)"), cell_timeout=1.0)
        outcome = target.submit(step, project, PERFORM).result(self.limit)
        assert outcome.status == "failed"
        assert "longer than 1 s" in outcome.error

    def test_a_step_that_failed_is_tried_again_as_often_as_it_says(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        book = notebook(
            "a.ipynb",
            "mark = ''",
            "import os\nn = len(os.listdir(mark))\nopen(f'{mark}/{n}', 'w').close()\nassert n == 2",
        )
        for name, retries, status, attempts in (("a", 3, "done", 3), ("b", 1, "failed", 2)):
            marks = tmp_path / f"marks-{name}"
            marks.mkdir()
            step = self.step(name, book, parameters={"mark": str(marks)}, retries=retries)
            outcome = target.submit(step, project, PERFORM).result(self.limit)
            assert (outcome.status, outcome.attempts) == (status, attempts), outcome.why
            assert len(os.listdir(marks)) == attempts

    def test_steps_run_side_by_side_and_no_more_than_there_are_slots(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        assert target.slots >= 2
        # Each waits until there are two: one after the other, they would wait for ever.
        book = notebook(
            "a.ipynb", "mark = ''\nmine = 0",
            "import os, time\nfrom jupyter_mlops import log_metric\nlog_metric('began', time.time())\n"
            "open(f'{mark}/{mine}', 'w').close()\nwhile len(os.listdir(mark)) < 2: time.sleep(0.05)\n"
            "log_metric('ended', time.time())",
        )  # fmt: skip
        marks = tmp_path / "marks"
        marks.mkdir()
        handles = [
            target.submit(self.step(f"a{n}", book, parameters={"mark": str(marks), "mine": n}), project, PERFORM)
            for n in range(target.slots + 1)
        ]
        times = [self.done(handle).metrics for handle in handles]
        for moment in [one["began"] for one in times]:
            assert sum(one["began"] <= moment < one["ended"] for one in times) <= target.slots

    def test_a_kill_ends_the_kernel_and_all_it_has_started(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        book = notebook(
            "a.ipynb", "mark = ''",
            "import os, signal, subprocess, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "inner = subprocess.Popen(['sleep', '600'])\n"
            "apart = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
            "open(mark + '.part', 'w').write(f'{os.getpid()} {inner.pid} {apart.pid}')\n"
            "os.rename(mark + '.part', mark)\n"
            "while True: time.sleep(1)",
        )  # fmt: skip
        mark = tmp_path / "pids"
        handle = target.submit(self.step("a", book, parameters={"mark": str(mark)}), project, PERFORM)
        pids = [int(pid) for pid in self.there(mark, handle).split()]
        outcome = handle.kill()
        assert outcome.status == "interrupted"
        assert handle.done()
        assert handle.kill() == outcome
        self.gone(*pids)
        self.done(target.submit(self.step("b", notebook("b.ipynb", "x = 1")), project, PERFORM))

    def test_an_interrupted_step_is_on_record_as_that_with_a_notebook_that_is_valid(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        mark = tmp_path / "mark"
        book = notebook("a.ipynb", "mark = ''", "'kept'", "import time; open(mark, 'w').write('x'); time.sleep(600)")
        handle = target.submit(self.step("a", book, parameters={"mark": str(mark)}), project, PERFORM)
        self.there(mark, handle)
        outcome = handle.kill()
        assert outcome.status == "interrupted"
        assert outcome.run is not None
        assert project.store.run(outcome.run).status == "interrupted"
        assert "kept" in json.dumps(json.loads((project.root / "a.out.ipynb").read_text())["cells"])

    def test_a_step_that_waits_its_turn_can_be_withdrawn(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        hold = tmp_path / "hold"
        book = notebook("a.ipynb", "hold = ''", "import os, time\nwhile not os.path.exists(hold): time.sleep(0.05)")
        running = [
            target.submit(self.step(f"a{n}", book, parameters={"hold": str(hold)}), project, PERFORM)
            for n in range(target.slots)
        ]
        waiting = target.submit(self.step("late", notebook("b.ipynb", "x = 1")), project, PERFORM)
        assert not waiting.done()
        with pytest.raises(TimeoutError):
            waiting.result(0.01)
        outcome = waiting.kill()
        assert (outcome.status, outcome.run) == ("interrupted", None)
        hold.touch()
        for handle in running:
            self.done(handle)
        assert not (project.root / "late.out.ipynb").exists()

    def test_a_step_whose_process_dies_is_lost_with_the_reason_and_leaves_no_kernel(
        self, target: Target, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        mark = tmp_path / "pid"
        book = notebook(
            "a.ipynb",
            "mark = ''",
            "import os, time\nopen(mark, 'w').write(str(os.getpid()))\nwhile True: time.sleep(1)",
        )
        step = self.step("a", book, parameters={"mark": str(mark)})
        handle = target.submit(step, project, f"{__name__}:{perish.__name__}")
        outcome = handle.result(self.limit)
        assert outcome.status == "lost"
        assert outcome.cause
        self.gone(int(mark.read_text()))
        self.done(target.submit(self.step("b", notebook("b.ipynb", "x = 1")), project, PERFORM))

    def test_a_closed_target_has_ended_its_steps_and_takes_no_more(
        self, project: Project, notebook: Callable[..., str], tmp_path: Path
    ) -> None:
        mark = tmp_path / "pid"
        book = notebook(
            "a.ipynb", "mark = ''", "import os, time\nopen(mark, 'w').write(str(os.getpid()))\ntime.sleep(600)"
        )
        with self.open(project) as target:
            handle = target.submit(self.step("a", book, parameters={"mark": str(mark)}), project, PERFORM)
            self.there(mark, handle)
        assert handle.done()
        assert handle.result().status == "interrupted"
        self.gone(int(mark.read_text()))
        with pytest.raises(MlopsError):
            target.submit(self.step("b", book), project, PERFORM)

    def test_steps_can_be_submitted_and_killed_from_many_threads(
        self, target: Target, project: Project, notebook: Callable[..., str]
    ) -> None:
        book = notebook("a.ipynb", "import time; time.sleep(600)")
        outcomes: list[Outcome] = []

        def one(n: int) -> None:
            outcomes.append(target.submit(self.step(f"a{n}", book), project, PERFORM).kill())

        threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.limit)
        assert [one.status for one in outcomes] == ["interrupted"] * 6
