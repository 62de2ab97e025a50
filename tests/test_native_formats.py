"""Models in other libraries' own formats, written and read by the real libraries; and files that mean harm."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from jupyter_mlops import checks
from jupyter_mlops.errors import ExtraMissing, WrongUse
from jupyter_mlops.registry import FormatRefused, GateRefused, LoadRefused, LocalRegistry, ModelDamaged
from jupyter_mlops.registry.formats import BUILT_IN, ProviderBroken
from jupyter_mlops.store import Store
from jupyter_mlops.testing import FormatSuite


def needed(module: str) -> ModuleType:
    """A library that the tests' full environment has; elsewhere what needs it is skipped by name."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # LightGBM's library needs one of the system's
        pytest.skip(f"needs {module}: {error}")


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with Store.create(tmp_path / ".mlops") as store:
        yield LocalRegistry(store, user="ada")


X = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


def onnx_of(model: Any) -> Any:
    needed("onnx")
    needed("onnxruntime")
    return needed("skl2onnx").to_onnx(model, X[:1])


def asked(session: Any) -> Any:
    return session.run(None, {session.get_inputs()[0].name: X})


# -- each format keeps to the contract -------------------------------------------------------------------------------


class TestOnnx(FormatSuite):
    format = BUILT_IN["onnx"]

    def models(self) -> list[Any]:
        return [onnx_of(LinearRegression().fit(X, Y * factor)) for factor in (1, 2)]

    def answers(self, model: Any) -> Any:
        if not hasattr(model, "run"):
            model = needed("onnxruntime").InferenceSession(model.SerializeToString())
        return asked(model)[0].tobytes()

    def reborn(self, loaded: Any) -> Any:
        return next(one for one in self.models() if self.answers(one) == self.answers(loaded))


class TestSafetensorsOfTorch(FormatSuite):
    format = BUILT_IN["safetensors"]

    def models(self) -> list[Any]:
        needed("safetensors")
        torch = needed("torch")
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)))
        found[1].half()
        return found

    def answers(self, model: Any) -> Any:
        state = model if isinstance(model, dict) else model.state_dict()
        return sorted((name, str(one.dtype), one.tolist()) for name, one in state.items())


class TestSafetensorsOfArrays(FormatSuite):
    format = BUILT_IN["safetensors"]

    def models(self) -> list[Any]:
        needed("safetensors")
        return [{"w": X, "b": np.arange(3)}, {"w": X * 2, "b": np.array([True])}, {"w": X.T}]

    def answers(self, model: Any) -> Any:
        return sorted((name, str(one.dtype), one.tolist()) for name, one in model.items())


class TestXgboost(FormatSuite):
    format = BUILT_IN["xgboost"]

    def models(self) -> list[Any]:
        xgboost = needed("xgboost")
        found = [xgboost.XGBClassifier(n_estimators=n, max_depth=2).fit(FRAME, Y) for n in (2, 5)]
        return [*found, xgboost.XGBRegressor(n_estimators=3).fit(FRAME, X[:, 2]), found[0].get_booster()]

    def answers(self, model: Any) -> Any:
        data = needed("xgboost").DMatrix(FRAME) if type(model).__name__ == "Booster" else FRAME
        return [type(model).__name__, model.predict(data).tobytes(), getattr(model, "n_features_in_", 3)]


class TestLightgbm(FormatSuite):
    format = BUILT_IN["lightgbm"]

    def models(self) -> list[Any]:
        lightgbm = needed("lightgbm")
        return [lightgbm.LGBMClassifier(n_estimators=n, verbose=-1).fit(FRAME, Y).booster_ for n in (2, 5)]

    def answers(self, model: Any) -> Any:
        return [model.predict(FRAME).tobytes(), model.feature_name()]


# -- registered, gated, promoted, loaded -----------------------------------------------------------------------------


def made(name: str) -> Any:
    return {"onnx": TestOnnx, "safetensors": TestSafetensorsOfTorch, "xgboost": TestXgboost, "lightgbm": TestLightgbm}[
        name
    ]()


@pytest.mark.parametrize("name", ["onnx", "safetensors", "xgboost", "lightgbm"])
def test_a_model_of_another_library_goes_all_the_way_to_production(registry: LocalRegistry, name: str) -> None:
    suite = made(name)
    model = suite.models()[0]
    # Tensors are not the model itself, so their format is asked for; the others are known by their class.
    number, _ = registry.register(
        model, "m", data=(FRAME, Y), evaluation=(Y, X[:, 0]), format=name if name == "safetensors" else None
    )
    info = registry.get("m")
    assert (number, info.format) == (1, name)
    assert registry.register(model, "m", format=name).existed, "the same content is one version"
    registry.promote("m", "production", gates=["signature", "not-pickle", "auc>=0.6"])
    assert suite.answers(registry.load("m@production")) == suite.answers(model)
    signature = registry.signature(info)
    assert signature is not None
    assert [one.name for one in signature.inputs] == ["a", "b", "c"]


@pytest.mark.parametrize(("name", "file"), [("xgboost", "m.ubj"), ("xgboost", "m.json"), ("lightgbm", "m.txt")])
def test_a_file_of_boosted_trees_is_read_by_its_library_on_demand_only(
    registry: LocalRegistry, tmp_path: Path, name: str, file: str
) -> None:
    suite = made(name)
    model = suite.models()[0]
    model.save_model(tmp_path / file)
    registry.register(tmp_path / file, "m")
    assert registry.get("m").format == {"m.ubj": "ubj", "m.json": "json", "m.txt": "text"}[file]
    with pytest.raises(LoadRefused, match=r"crash the process.*trust=True"):
        registry.load("m")
    assert suite.answers(registry.load("m", trust=True)) == suite.answers(model)
    registry.register(tmp_path / file, "claimed", format={"m.json": "json"}.get(file, name))
    assert registry.get("claimed").format == registry.get("m").format, "nobody's word makes a file one that we dumped"


@pytest.mark.parametrize("data", [b"{}", b"{L\0", b'{"learner":{}}', b'{"a": 1}'])
def test_a_file_that_is_no_booster_is_refused_by_xgboost(registry: LocalRegistry, tmp_path: Path, data: bytes) -> None:
    needed("xgboost")
    path = tmp_path / ("m.ubj" if b"\0" in data else "m.json")
    path.write_bytes(data)
    registry.register(path, "m")
    with pytest.raises(ModelDamaged, match="no model of XGBoost"):
        registry.load("m", trust=True)


def test_a_file_of_onnx_is_loaded_and_answers_as_the_model_did(registry: LocalRegistry, tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X, Y)
    (tmp_path / "m.onnx").write_bytes(onnx_of(fitted).SerializeToString())
    registry.register(tmp_path / "m.onnx", "m")
    labels, scores = asked(registry.load("m"))
    assert (labels == fitted.predict(X)).all()
    assert np.allclose([one[1] for one in scores], fitted.predict_proba(X)[:, 1], atol=1e-6)


def test_types_that_only_torch_knows_come_back_as_its_tensors(registry: LocalRegistry) -> None:
    needed("safetensors")
    torch = needed("torch")
    registry.register({"w": torch.ones(3, dtype=torch.bfloat16)}, "m", format="safetensors")
    loaded: Any = registry.load("m")
    assert loaded["w"].dtype is torch.bfloat16


def test_a_module_is_told_how_to_be_kept_and_never_kept_otherwise(registry: LocalRegistry) -> None:
    torch = needed("torch")
    lightgbm = needed("lightgbm")
    for model, words in (
        (torch.nn.Linear(3, 1), "--format safetensors"),
        (lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, Y), "booster_"),
    ):
        with pytest.raises(FormatRefused, match=words):
            registry.register(model, "m")
    tied = torch.nn.Linear(3, 3)
    with pytest.raises(FormatRefused, match="share memory"):
        registry.register({"a": tied.weight, "b": tied.weight}, "m", format="safetensors")
    with pytest.raises(FormatRefused, match="to_onnx"):
        registry.register(LogisticRegression().fit(X, Y), "m", format="onnx")
    with pytest.raises(WrongUse, match=r"--format one of .*lightgbm, onnx, pickle, safetensors, skops, xgboost"):
        registry.register(LogisticRegression().fit(X, Y), "m", format="pmml")
    assert registry.models() == []


@pytest.mark.parametrize(
    ("format", "module", "line"),
    [
        ("onnx", "onnxruntime", "jupyter-mlops[onnx]"), ("safetensors", "safetensors", "jupyter-mlops[torch]"),
        ("ubj", "xgboost", "jupyter-mlops[xgboost]"), ("text", "lightgbm", "jupyter-mlops[lightgbm]"),
    ],
)  # fmt: skip
def test_without_its_library_the_pip_line_is_told(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch, format: str, module: str, line: str
) -> None:
    data = {"onnx": b"\x08\x0a", "safetensors": st({}), "ubj": b"{L", "text": b"tree\n"}[format]
    registry.register(data, "m", format=format)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissing) as caught:
        registry.load("m", trust=True)
    assert line in str(caught.value)


# -- files that mean harm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["weights.bin", "../secret.bin", "/etc/hostname"])
@pytest.mark.parametrize("place", ["graph", "attribute", "subgraph", "function"])
def test_onnx_weights_in_another_file_are_neither_kept_nor_read(
    registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, place: str
) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "secret.bin", tmp_path / "in" / "weights.bin"):
        path.write_bytes(np.arange(3, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "in")
    data = outside(where, place)
    Path("m.onnx").write_bytes(data)
    with pytest.raises(FormatRefused, match="weights from another file"):
        registry.register(Path("m.onnx"), "m")
    with pytest.raises(FormatRefused, match="weights from another file"):
        registry.register(data, "m", format="onnx")
    with pytest.raises(LoadRefused, match="takes its weights from other files"):
        BUILT_IN["onnx"].load(data)  # type: ignore[misc]
    assert registry.models() == []


def outside(where: str, place: str) -> bytes:
    onnx = needed("onnx")
    needed("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    w = onnx.TensorProto(name="w", dims=[3], data_type=kinds.FLOAT, data_location=kinds.EXTERNAL)
    w.external_data.add(key="location", value=where)
    x, y = (helper.make_tensor_value_info(name, kinds.FLOAT, [3]) for name in "xy")
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=w))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    nodes, initializers, functions = [add], [], []
    if place == "graph":
        initializers = [w]
    elif place == "attribute":
        nodes = [constant, add]
    elif place == "subgraph":
        inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("w", kinds.FLOAT, [3])])
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", kinds.BOOL, [], [True]))
        nodes = [yes, helper.make_node("If", ["yes"], ["w"], then_branch=inner, else_branch=inner), add]
    else:
        opset = helper.make_opsetid("", 17)
        functions = [helper.make_function("own", "F", ["x"], ["y"], [constant, add], [opset])]
        nodes = [helper.make_node("F", ["x"], ["y"], domain="own")]
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    return bytes(made.SerializeToString())


def st(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


F32 = {"dtype": "F32", "shape": [2]}


@pytest.mark.parametrize(
    "data",
    [
        st({}, length=99_999_999),
        st({}, length=2**63),
        st({"a": {**F32, "data_offsets": [0, 8]}, "b": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12),
        st({"a": {**F32, "data_offsets": [0, 8]}, "b": {**F32, "data_offsets": [0, 8]}}, b"\0" * 8),
        st({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8),
        st({"a": {**F32, "data_offsets": [0, 2**62]}}, b"\0" * 8),
        st({"a": {**F32, "shape": [2**62, 2], "data_offsets": [0, 8]}}, b"\0" * 8),
        st({"a": {**F32, "data_offsets": [0, 8]}}, b"\0" * 7),
        st({"a": {**F32, "data_offsets": [0, 8]}}, b"\0" * 8 + b"more"),
        st({"a": {"dtype": "F999", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
        st({"__metadata__": {"format": "pt"}, "a": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12),
        st({"__metadata__": [1], "a": 3}),
        st(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        st(b"{nonsense"),
        st(b'{"\xff": 1}'),
    ],
    ids=[
        "giant header", "absurd header", "overlap", "twice", "backwards", "beyond", "huge shape", "short", "long",
        "type", "hole", "odd metadata", "deep", "no json", "no text",
    ],
)  # fmt: skip
def test_a_crafted_safetensors_file_is_refused(registry: LocalRegistry, tmp_path: Path, data: bytes) -> None:
    needed("safetensors")
    needed("torch")
    (tmp_path / "m.safetensors").write_bytes(data)
    try:
        registry.register(tmp_path / "m.safetensors", "m")
    except FormatRefused:
        assert registry.models() == []
        return
    with pytest.raises(ModelDamaged, match="safetensors file can not be read"):
        registry.load("m")


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".json", ".ubj", ".txt", ".skops"])
def test_a_torch_archive_under_another_name_is_never_unpickled(
    registry: LocalRegistry, tmp_path: Path, suffix: str
) -> None:
    """No format gives way to another: what is not what its name says is refused, at the latest when it is loaded."""
    torch = needed("torch")
    path, mark = tmp_path / f"m{suffix}", tmp_path / "ran"
    torch.save({"weights": torch.ones(2), "bomb": Bomb(mark)}, path)
    try:
        registry.register(path, "m")
    except FormatRefused:
        assert registry.models() == []
    else:
        for trust in (False, True):
            with pytest.raises(ModelDamaged):
                registry.load("m", trust=trust)
    assert not mark.exists()


def test_a_skops_file_that_asks_for_a_function_of_the_system_is_refused(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    import skops.io

    mark = tmp_path / "ran"
    raw = skops.io.dumps(LinearRegression().fit(X, Y))
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                schema["content"]["content"]["evil"] = {
                    "__class__": "mkdir", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1,
                }  # fmt: skip
                content = json.dumps(schema).encode()
            new.writestr(name, content)
    (tmp_path / "m.skops").write_bytes(buffer.getvalue())
    registry.register(tmp_path / "m.skops", "m")
    with pytest.raises((LoadRefused, ModelDamaged)):
        registry.load("m")
    with pytest.raises((LoadRefused, ModelDamaged)):
        registry.load("m", trust=True)
    assert not mark.exists()


# -- another package's format ----------------------------------------------------------------------------------------

PROVIDER = '''
"""A package that somebody else wrote: rules, kept as lines of text."""
from jupyter_mlops.registry import Format, FormatRefused, ModelDamaged


class Rules:
    def __init__(self, words):
        self.words = list(words)

    def predict(self, texts):
        return [any(word in text for word in self.words) for text in texts]


def dump(model):
    if type(model) is not Rules:
        raise FormatRefused("only Rules are kept as rules")
    return ("rules 1\\n" + "\\n".join(model.words) + "\\nend\\n").encode()


def load(data):
    lines = data.decode("utf-8", "replace").split("\\n")
    if lines[0] != "rules 1" or lines[-2:] != ["end", ""]:
        raise ModelDamaged("these are no rules")
    return Rules(lines[1:-2])


FORMAT = Format(
    name="rules", suffixes=(".rules",), load=load, dump=dump, looks=lambda head: head.startswith(b"rules 1\\n"),
    takes=("mlops_rules.Rules",),
)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a package that provides a format, as an installer leaves it."""
    site = tmp_path / "site"
    info = site / "mlops_rules-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlops-rules\nVersion: 1.0\n")
    (site / "mlops_rules.py").write_text(PROVIDER)
    monkeypatch.syspath_prepend(str(site))

    def provide(point: str = "rules = mlops_rules:FORMAT") -> Path:
        (info / "entry_points.txt").write_text(f"[jupyter_mlops.formats]\n{point}\n")
        return site

    provide()
    yield provide
    sys.modules.pop("mlops_rules", None)


class TestRules(FormatSuite):
    """The contract that a third party's format is held to, by the third party's own words."""

    @pytest.fixture(autouse=True)
    def _installed(self, installed: Any) -> None:
        self.module = importlib.import_module("mlops_rules")
        self.format = self.module.FORMAT

    def models(self) -> list[Any]:
        return [self.module.Rules(["late"]), self.module.Rules(["early", "soon"])]

    def answers(self, model: Any) -> Any:
        return model.predict(["late again", "see you soon", "never"])


def test_a_format_of_another_package_is_used_through_its_entry_point(registry: LocalRegistry, installed: Any) -> None:
    module = importlib.import_module("mlops_rules")
    registry.register(module.Rules(["late"]), "m")
    assert registry.get("m").format == "rules"
    loaded: Any = registry.load("m")
    assert loaded.predict(["late", "no"]) == [True, False]
    path = installed() / "some.rules"
    path.write_bytes(b"rules 1\nsoon\nend\n")
    registry.register(path, "m")
    loaded = registry.load("m/2")
    assert loaded.words == ["soon"]
    path.write_bytes(b"no rules")
    with pytest.raises(FormatRefused, match="not what its name says"):
        registry.register(path, "m")


def test_a_format_of_another_package_is_there_in_the_shell(installed: Any, project_folder: Path) -> None:
    site = installed()
    (project_folder / "some.rules").write_bytes(b"rules 1\nsoon\nend\n")
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "register", "some.rules", "m", "--format", "rules"],
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rules" in done.stdout


@pytest.mark.parametrize(
    "point", ["rules = mlops_rules:NOWHERE", "rules = mlops_absent:X", "other = mlops_rules:FORMAT"]
)
def test_a_provider_that_is_broken_is_named_and_hinders_no_scikit_learn(
    registry: LocalRegistry, installed: Any, tmp_path: Path, point: str
) -> None:
    installed(point)
    registry.register(LinearRegression().fit(X, Y), "m", data=(FRAME, Y))
    registry.promote("m", "production", gates=["signature"])
    assert isinstance(registry.load("m@production"), LinearRegression)
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(ProviderBroken, match=r"mlops-rules.*uninstall"):
        registry.register(tmp_path / "m.json", "j")


def test_no_package_takes_the_place_of_a_format_of_ours(registry: LocalRegistry, installed: Any) -> None:
    installed("skops = mlops_rules:FORMAT\npickle = mlops_rules:FORMAT\nonnx = mlops_rules:FORMAT")
    registry.register(LinearRegression().fit(X, Y), "m")
    assert isinstance(registry.load("m"), LinearRegression)
    with pytest.raises(FormatRefused, match="these bytes are a pickle"):
        registry.register(pickle.dumps(1), "p", format="onnx")


# -- seen when a cell reads or writes them ---------------------------------------------------------------------------


def test_a_model_file_that_a_cell_loads_is_a_file_it_read(shell: Any, project_folder: Path) -> None:
    from jupyter_mlops import capture

    for name in ("xgboost", "lightgbm", "safetensors", "torch", "onnx", "onnxruntime", "skl2onnx"):
        needed(name)
    start = """
        import numpy as np, joblib, torch, xgboost, lightgbm, onnx, onnxruntime, skops.io, skl2onnx, safetensors
        import safetensors.torch, safetensors.numpy
        from sklearn.linear_model import LinearRegression
        X = np.random.default_rng(0).normal(size=(50, 3)).astype('float32'); y = X[:, 0] > 0
        fitted = LinearRegression().fit(X, y)
        net = torch.nn.Linear(3, 1)
        trees = xgboost.XGBClassifier(n_estimators=2).fit(X, y)
        leaves = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, y)
    """
    shell.run_cell(textwrap.dedent(start), store_history=True).raise_error()
    pairs = {
        "a.ubj": ("trees.save_model('a.ubj')", "xgboost.XGBClassifier().load_model('a.ubj')"),
        "b.json": ("trees.get_booster().save_model('b.json')", "xgboost.Booster(model_file='b.json')"),
        "c.txt": ("leaves.booster_.save_model('c.txt')", "lightgbm.Booster(model_file='c.txt')"),
        "d.safetensors": ("safetensors.torch.save_file(net.state_dict(), 'd.safetensors')",
                          "safetensors.torch.load_file('d.safetensors')"),
        "e.safetensors": ("safetensors.numpy.save_file({'a': X}, 'e.safetensors')",
                          "safetensors.numpy.load_file('e.safetensors')"),
        "f.safetensors": ("safetensors.torch.save_model(net, 'f.safetensors')",
                          "_ = safetensors.torch.load_model(net, 'f.safetensors')"),
        "g.safetensors": ("safetensors.torch.save_file(net.state_dict(), 'g.safetensors')",
                          "with safetensors.safe_open('g.safetensors', framework='np') as file:\n    file.keys()"),
        "h.pt": ("torch.save(net.state_dict(), 'h.pt')", "torch.load('h.pt', weights_only=True)"),
        "i.onnx": ("onnx.save(skl2onnx.to_onnx(fitted, X[:1]), 'i.onnx')", "onnxruntime.InferenceSession('i.onnx')"),
        "j.onnx": ("onnx.save(skl2onnx.to_onnx(fitted, X[:1]), 'j.onnx')", "onnx.load('j.onnx')"),
        "k.skops": ("skops.io.dump(fitted, 'k.skops')", "skops.io.load('k.skops')"),
        "l.joblib": ("_ = joblib.dump(fitted, 'l.joblib')", "joblib.load('l.joblib')"),
    }  # fmt: skip
    missed = []
    for name, (write, read) in pairs.items():
        shell.run_cell(f"{write};", store_history=True).raise_error()
        shell.run_cell(f"{read}\n''", store_history=True).raise_error()
        written, seen = list(reversed(capture.session().store.cell_runs(limit=2)))
        if [one.name for one in written.files_written] != [name]:
            missed.append((write, [one.name for one in written.files_written]))
        if [one.name for one in seen.files_read] != [name]:
            missed.append((read, [one.name for one in seen.files_read]))
        elif seen.files_read[0].digest != written.files_written[0].digest:
            missed.append((read, "another digest"))
    assert missed == []


def test_a_model_that_can_not_be_asked_is_told_how_to_be_compared(registry: LocalRegistry) -> None:
    registry.register(onnx_of(LinearRegression().fit(X, Y)), "m", data=(FRAME, Y))
    with pytest.raises(checks.EvaluationInvalid, match="--evaluation"):
        registry.check("m", ["accuracy>=0.5"], data=(FRAME, Y))
    registry.register(onnx_of(LinearRegression().fit(X, 2 * Y)), "m", evaluation=(Y, X[:, 0]))
    with pytest.raises(GateRefused):
        registry.promote("m", "production", gates=["signature"])
