"""What is installed is told truly and for nearly nothing, and a change is noticed."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import psutil
import pytest

from jupyter_mlops.environment import Observer, canonical, diff, observe, program_variables, requirements
from jupyter_mlops.environment.machine import ask_driver
from jupyter_mlops.records import Environment, Package
from jupyter_mlops.redact import Redactor


def install(
    site: Path, name: str, version: str, *, modules: tuple[str, ...] = (), direct: str = "", top_level: bool = False
) -> Path:
    """Put a distribution into a folder, as an installer leaves it."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\ntext\n")
    (folder / "RECORD").write_text("".join(f"{module},sha256=x,1\n" for module in modules))
    if direct:
        (folder / "direct_url.json").write_text(direct)
    if top_level:
        (folder / "top_level.txt").write_text("".join(f"{module.partition('.')[0]}\n" for module in modules))
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages at the head of the path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def package(environment: Environment | None, name: str) -> Package | None:
    assert environment is not None
    return next((one for one in environment.packages if one.name == name), None)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_lists_the_same_versions_as_importlib_metadata() -> None:
    expected = {}
    for one in metadata.distributions():
        if one.metadata["Name"]:
            expected.setdefault(canonical(one.metadata["Name"]), one.version)
    assert {one.name: one.version for one in observe().packages} == expected


def test_interpreter_platform_and_machine_are_told() -> None:
    environment = observe()
    assert environment.python == platform.python_version()
    assert environment.implementation == platform.python_implementation()
    assert environment.machine == platform.machine()
    assert environment.cores >= 1
    assert environment.memory > 1 << 28


def test_origins_are_told_without_credentials(site: Path) -> None:
    install(site, "one-index", "1.0")
    install(site, "one-edit", "1.0", direct='{"url": "file:///home/ana/src", "dir_info": {"editable": true}}')
    install(site, "one-file", "1.0", direct='{"url": "file:///home/ana/one_file-1.0.whl", "archive_info": {}}')
    install(site, "one-url", "1.0", direct='{"url": "https://a:pw99@h/x.whl#sha", "archive_info": {}}')
    vcs = '{"url": "https://tok12345@h/o/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}'
    install(site, "one-vcs", "1.0", direct=vcs)
    install(site, "one-bad", "1.0", direct="[" * 5000)
    environment = observe()
    origins = {one.name: one.origin for one in environment.packages if one.name.startswith("one-")}
    assert origins == {
        "one-index": "", "one-edit": "editable", "one-file": "direct one_file-1.0.whl", "one-url": "direct https://h/x.whl",
        "one-vcs": "vcs git+https://h/o/r.git@abc123", "one-bad": "direct (unreadable)",
    }  # fmt: skip


def test_folders_that_are_no_distributions_are_passed_over(site: Path) -> None:
    for name in ("~andas-1.0.dist-info", "broken.dist-info", "nothing-1.dist-info-x"):
        (site / name).mkdir()
    (site / "old_style-2.5-py3.11.egg-info").mkdir()
    (site / "local.egg-info").mkdir()
    (site / "local.egg-info" / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: Local.Thing\nVersion: 0.3\n")
    environment = observe()
    assert package(environment, "old-style") == Package(name="old-style", version="2.5")
    assert package(environment, "local-thing") == Package(name="local-thing", version="0.3")
    assert not any(("andas" in one.name and "~" in one.name) or one.name == "broken" for one in environment.packages)


def test_variables_are_told_by_an_allow_list_and_the_others_by_name_only() -> None:
    secret = "".join(("Zq7", "tB1", "mN4", "xK9"))
    environ = {
        "HOME": "/home/ana", "PYTHONPATH": "/home/ana/src", "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0",
        "VIRTUAL_ENV": "/home/ana/.venv", "LC_ALL": "C", "TZ": "UTC", "DB_PASSWORD": secret, "EDITOR": "vim",
        "PYTHON_KEYRING_PASSWORD": secret, "MKL_URL": f"https://a:{secret}@h/",
    }  # fmt: skip
    environment = observe(environ, redactor=Redactor([secret]))
    assert environment.variables == {
        "CUDA_VISIBLE_DEVICES": "0", "LC_ALL": "C", "MKL_URL": environment.variables["MKL_URL"], "OMP_NUM_THREADS": "4",
        "PYTHONPATH": "~/src", "TZ": "UTC", "VIRTUAL_ENV": "(set)",
    }  # fmt: skip
    assert environment.other_variables == ["DB_PASSWORD", "EDITOR", "HOME", "PYTHON_KEYRING_PASSWORD"]
    assert secret not in repr(environment)
    assert "/home/ana" not in repr((environment.variables, environment.other_variables))


def test_the_first_observation_is_made_in_the_background_once() -> None:
    observer = Observer()
    observer.start()
    observer.start()
    first = observer.current()
    assert first == observe(gpus=(first.gpus, first.driver)) or (first is not None and first.gaps)
    assert observer.current() is first
    assert not Observer().changed()


def test_nothing_changes_when_nothing_changed(site: Path) -> None:
    observer = Observer()
    first = observer.current()
    assert not any(observer.changed() for _ in range(10))
    assert observer.current() is first


def test_an_installation_is_noticed_at_the_next_look(site: Path) -> None:
    observer = Observer()
    observer.current()
    folder = install(site, "just-came", "1.0")
    assert observer.changed()
    assert package(observer.current(), "just-came") == Package(name="just-came", version="1.0")
    assert not observer.changed()
    shutil.rmtree(folder)
    assert observer.changed()
    assert package(observer.current(), "just-came") is None


def test_a_changed_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Observer()
    observer.current()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert observer.changed()
    now = observer.current()
    assert now is not None
    assert now.variables["OMP_NUM_THREADS"] == "3"
    assert not observer.changed()


def test_files_written_into_the_working_directory_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    observer = Observer()
    first = observer.current()
    (tmp_path / "out.csv").write_text("x")
    assert observer._same() or not observer.changed()
    assert observer.current() is first


def test_a_version_in_memory_that_is_no_longer_installed_is_told(site: Path, forget_modules: None) -> None:
    folder = install(site, "mlops-upgraded", "1.0", modules=("mlops_upgraded.py",))
    module = types.ModuleType("mlops_upgraded")
    module.__version__ = "1.0"  # type: ignore[attr-defined]
    sys.modules["mlops_upgraded"] = module
    observer = Observer()
    assert package(observer.current(), "mlops-upgraded") == Package(name="mlops-upgraded", version="1.0")
    shutil.rmtree(folder)
    install(site, "mlops-upgraded", "2.0", modules=("mlops_upgraded.py",))
    assert observer.changed()
    upgraded = Package(name="mlops-upgraded", version="2.0", loaded="1.0")
    assert package(observer.current(), "mlops-upgraded") == upgraded
    assert requirements(["mlops_upgraded"], observer.current()) == ["mlops-upgraded==1.0"]
    install(site, "mlops-other", "1.0")  # another change does not make it forgotten
    assert observer.changed()
    assert package(observer.current(), "mlops-upgraded") == upgraded


def test_a_module_that_tells_no_version_is_known_by_what_was_installed_before(site: Path, forget_modules: None) -> None:
    folder = install(site, "mlops-silent", "1.0", modules=("mlops_silent/__init__.py",))
    sys.modules["mlops_silent"] = types.ModuleType("mlops_silent")
    observer = Observer()
    observer.current()
    shutil.rmtree(folder)
    install(site, "mlops-silent", "2.0", modules=("mlops_silent/__init__.py",))
    assert observer.changed()
    assert package(observer.current(), "mlops-silent") == Package(name="mlops-silent", version="2.0", loaded="1.0")


def test_an_upgrade_before_the_first_look_is_told_too(site: Path, forget_modules: None) -> None:
    module = types.ModuleType("mlops_early")
    module.__version__ = "1.0"  # type: ignore[attr-defined]
    sys.modules["mlops_early"] = module
    install(site, "mlops-early", "2.0", modules=("mlops_early.py",))
    future = time.time() + 5
    os.utime(site / "mlops_early-2.0.dist-info", (future, future))
    assert package(Observer().current(), "mlops-early") == Package(name="mlops-early", version="2.0", loaded="1.0")


def test_a_package_that_is_not_loaded_has_no_loaded_version(site: Path) -> None:
    folder = install(site, "mlops-absent", "1.0", modules=("mlops_absent.py",))
    observer = Observer()
    observer.current()
    shutil.rmtree(folder)
    install(site, "mlops-absent", "2.0", modules=("mlops_absent.py",))
    assert observer.changed()
    assert package(observer.current(), "mlops-absent") == Package(name="mlops-absent", version="2.0")


def test_a_real_pip_install_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel made here, installed by pip without a network into a folder on the path."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("needs pip in this environment")
    import zipfile

    wheel = tmp_path / "mlops_tiny-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mlops_tiny.py", "__version__ = '1.2'\n")
        archive.writestr("mlops_tiny-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: mlops-tiny\nVersion: 1.2\n")
        archive.writestr(
            "mlops_tiny-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("mlops_tiny-1.2.dist-info/RECORD", "mlops_tiny.py,,\nmlops_tiny-1.2.dist-info/RECORD,,\n")
    target = tmp_path / "site-packages"
    target.mkdir()
    monkeypatch.syspath_prepend(str(target))
    observer = Observer()
    observer.current()
    words = [
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    assert observer.changed()
    now = observer.current()
    found = package(now, "mlops-tiny")
    assert found is not None
    assert (found.version, found.origin) == ("1.2", "direct mlops_tiny-1.2-py3-none-any.whl")
    assert requirements(["mlops_tiny"], now) == ["mlops-tiny==1.2"]


def test_a_forked_child_does_not_wait_for_the_parent_s_thread() -> None:
    observer = Observer()
    observer.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if observer.current(timeout=60) is not None else 1)
    end = time.monotonic() + 60
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Put a program of that name on the path, for a machine without the real one's driver."""
    if Path("/proc/driver/nvidia/gpus").exists():
        pytest.skip("needs a machine without an NVIDIA driver in /proc")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(script: str) -> str:
        program = folder / "nvidia-smi"
        program.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return str(program)

    return install


def test_gpus_are_asked_of_the_driver_in_the_background(nvidia_smi: Callable[[str], str]) -> None:
    nvidia_smi("echo 'Fancy GPU 9000, 550.54.15'\necho 'Fancy GPU 9000, 550.54.15'")
    observer = Observer()
    observer.start()
    first = observer.current()
    assert first is not None
    eventually(lambda: observer.changed() or bool(observer._current and observer._current.gpus))
    now = observer.current()
    assert now is not None
    assert (now.gpus, now.driver) == (["Fancy GPU 9000", "Fancy GPU 9000"], "550.54.15")
    assert not now.gaps


@pytest.mark.parametrize(
    ("script", "gpus", "driver", "why"),
    [
        ("echo 'NVIDIA A100-SXM4-40GB, 550.54.15, Enabled'\necho 'NVIDIA A100-SXM4-40GB, 550.54.15, Disabled'",
         ["NVIDIA A100-SXM4-40GB (MIG)", "NVIDIA A100-SXM4-40GB"], "550.54.15", ""),
        ("echo 'Tesla T4, 535.1, [N/A]'", ["Tesla T4"], "535.1", ""),
        # an old driver: it ends with 2 for a field that it does not know
        ("case \"$1\" in *mig*) echo 'Field \"mig.mode.current\" is not a valid field to query.'; exit 2;; esac\n"
         "echo 'Tesla K80, 390.48'", ["Tesla K80"], "390.48", ""),
        ("echo 'Odd, with a comma, 550.1, [N/A]'", ["Odd, with a comma"], "550.1", ""),
        ("echo 'Tesla T4, 535.1, [N/A]'; echo '[GPU is lost], 535.1, [N/A]'", ["Tesla T4"], "535.1", ""),
        ("echo 'No devices were found'", [], "", ""),
        ("echo 'No devices were found'; exit 6", [], "", ""),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9", [], "",
         "nvidia-smi ended with 9, without an answer"),
        ("echo 'some, words'", [], "", "nvidia-smi gave an answer that can not be read"),
        ("true", [], "", "nvidia-smi gave an answer that can not be read"),
        ("head -c 100000 /dev/urandom", [], "", "nvidia-smi gave an answer that can not be read"),
        ("printf 'X\\033[2Jx, 550.1, [N/A]\\n'", [], "", "nvidia-smi gave an answer that can not be read"),
        ("yes 'Tesla T4'", [], "", "nvidia-smi gave an answer that can not be read"),
        ("kill -9 $$", [], "", "nvidia-smi ended with -9, without an answer"),
        ("#!/no/such/interpreter\n", [], "", "nvidia-smi can not be run: No such file or directory"),
    ],
)  # fmt: skip
def test_whatever_the_driver_answers_is_told_or_a_gap(
    nvidia_smi: Callable[[str], str], script: str, gpus: list[str], driver: str, why: str
) -> None:
    answer = ask_driver(nvidia_smi(script))
    assert (answer.gpus, answer.driver, answer.why) == (gpus, driver, why)


@pytest.mark.parametrize(
    "script", ["sleep 600", "sleep 600 & exit 0", "exec >&-\nsleep 600", "echo 'Tesla T4, 5'; sleep 600"]
)
def test_a_driver_that_hangs_is_not_waited_for_and_leaves_no_process(
    nvidia_smi: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("MLOPS_TEST_OF_DRIVER", str(tmp_path))
    answer = ask_driver(nvidia_smi(script), patience=1.0)
    assert answer.why == "nvidia-smi did not answer within 1 seconds"
    monkeypatch.delenv("MLOPS_TEST_OF_DRIVER")
    eventually(lambda: not _marked(str(tmp_path)))


def _marked(mark: str) -> list[int]:
    """The living processes that were started with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MLOPS_TEST_OF_DRIVER") == mark:
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def test_a_driver_that_gives_no_answer_is_a_gap_of_the_environment(nvidia_smi: Callable[[str], str]) -> None:
    nvidia_smi("exit 9")
    observer = Observer()
    observer.start()
    assert observer.current() is not None
    eventually(lambda: observer.changed() and [one.reason[:10] for one in observer._current.gaps] == ["nvidia-smi"])
    assert [one.subject for one in observer.current().gaps] == ["gpus"]
    assert observer.current().gpus == []
    assert not observer.changed()


def test_torch_without_a_gpu_is_not_made_to_look_for_one() -> None:
    """In a process of its own: looking starts the driver, takes seconds and memory, and breaks a later fork."""
    pytest.importorskip("torch")
    script = (
        "import torch\nfrom jupyter_mlops.environment import Observer\n"
        "calls = []\nfor name in ('is_available', 'device_count', '_lazy_init', 'init'):\n"
        "    setattr(torch.cuda, name, lambda *a, name=name, **k: calls.append(name))\n"
        "one = Observer(); one.start(); now = one.current()\n"
        "assert any(p.name == 'torch' for p in now.packages)\n"
        "print(calls, torch.cuda.is_initialized(), now.gpus, now.driver)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split(" [")[0] == "[] False"


def test_requirements_name_what_was_really_imported(site: Path, forget_modules: None) -> None:
    names = ["sklearn.linear_model", "dateutil.parser", "os", "sys", "no_such_module"]
    assert requirements(names) == [f"{name}=={metadata.version(name)}" for name in ("python-dateutil", "scikit-learn")]
    install(site, "ns-one", "1.0", modules=("mlops_ns/one/__init__.py",))
    install(site, "ns-two", "2.0", modules=("mlops_ns/two/__init__.py", "mlops_ns/two/deep.py"))
    assert requirements(["mlops_ns.two.deep"]) == ["ns-two==2.0"]
    assert requirements(["mlops_ns.one", "mlops_ns.two"]) == ["ns-one==1.0", "ns-two==2.0"]
    vcs = '{"url": "https://h/o/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}'
    install(site, "from-git", "1.0", modules=("mlops_from_git.py",), direct=vcs)
    assert requirements(["mlops_from_git"]) == ["from-git @ git+https://h/o/r.git@abc"]


def test_a_difference_is_told_and_equal_environments_have_none() -> None:
    old = Environment(
        python="3.11.7", packages=[Package(name=name, version="1") for name in "abc"],
        variables={"TZ": "UTC", "LANG": "C"}, other_variables=["EDITOR"], gpus=["X"],
    )  # fmt: skip
    new = Environment(
        python="3.12.1", packages=[
            Package(name="b", version="2", loaded="1"), Package(name="c", version="1"),
            Package(name="d", version="1", origin="editable"),
        ],
        variables={"TZ": "CET", "OMP_NUM_THREADS": "2"}, other_variables=["EDITOR"], gpus=["X"],
    )  # fmt: skip
    assert not diff(old, old)
    assert diff(old, old).lines() == []
    found = diff(old, new)
    assert found
    assert found.lines() == [
        "~ python: 3.11.7 -> 3.12.1", "+ d 1 (editable)", "- a 1", "~ b: 1 -> 2 [1 in memory]", "- $LANG=C",
        "+ $OMP_NUM_THREADS=2", "~ $TZ: UTC -> CET",
    ]  # fmt: skip
    assert diff(old, msgspec.structs.replace(old, other_variables=["EDITOR", "X"])).lines() == ["+ $X=(not recorded)"]


def test_a_program_we_start_gets_no_steering_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/x")
    monkeypatch.setenv("LD_PRELOAD", "/x")
    assert not {"GIT_DIR", "LD_PRELOAD"} & set(program_variables())
    assert program_variables()["PATH"] == os.environ["PATH"]
