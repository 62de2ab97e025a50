"""How a model becomes bytes, and which bytes may become a model again.

The format is the boundary of safety: what is written down for loading is data, and the code that reads it comes from
installed libraries. skops is the format for scikit-learn; other libraries' own formats (ONNX, safetensors, boosters)
are kept as they are. A pickle is a program: it is written only on explicit demand, said to be one on the record, and
loaded only on explicit demand. No format stands in for another that failed.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse, door


class FormatRefused(MlopsError, TypeError):
    """A model can not be kept in the safe format that was asked for."""

    exit_code = 1


class LoadRefused(MlopsError, PermissionError):
    """Loading these bytes would trust somebody who was not said to be trusted."""

    exit_code = 1


class ModelDamaged(MlopsError, ValueError):
    """A model's bytes do not have the form that their format has."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A way to keep models, as providers declare it under the entry point ``jupyter_mlops.formats``.

    Attributes
    ----------
    name
        What stands on the record as the model's type.
    suffixes
        Of files in this format, with their dots.
    load
        Makes a model of its bytes, without running code that the bytes bring. None: only the bytes can be had.
    dump
        Makes bytes of a model; None for a format that only files come in.
    looks
        Says of the first 4 KiB of a file whether it can be one.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    load: Callable[[bytes], object] | None = None
    dump: Callable[[object], bytes] | None = None
    looks: Callable[[bytes], bool] = lambda _: True


RUNS_CODE: Final = frozenset({"pickle", "joblib"})
"""Formats whose bytes are programs."""
OWN_SKOPS: Final = "skops"
FOREIGN_SKOPS: Final = "skops-file"
"""A skops file that somebody gave us: skops' own trust applies to it, not the list for what we dumped ourselves."""


# -- trust in what we dumped ourselves -------------------------------------------------------------------------------

_COMPILED: Final = {
    # Arrays of nodes that compiled code follows without checking bounds: a crafted file can crash the process, a
    # fitted model's own arrays cannot. These are why this list applies to nothing but our own dumps.
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Trees over points, restored by __setstate__ from arrays: the same reservation.
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._kd_tree.KDTree32",
    "sklearn.neighbors._kd_tree.KDTree64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._ball_tree.BallTree32",
    "sklearn.neighbors._ball_tree.BallTree64",
    # Distances: a few numbers each, no code.
    *(
        f"sklearn.metrics._dist_metrics.{name}{bits}"
        for name in (
            "EuclideanDistance", "SEuclideanDistance", "ManhattanDistance", "ChebyshevDistance", "MinkowskiDistance",
            "MahalanobisDistance", "HammingDistance", "CanberraDistance", "BrayCurtisDistance", "JaccardDistance",
            "DiceDistance", "RogersTanimotoDistance", "RussellRaoDistance", "SokalMichenerDistance",
            "SokalSneathDistance", "HaversineDistance",
        )
        for bits in ("", "32", "64")
    ),
}  # fmt: skip

_PLAIN: Final = {
    # Plain Python classes of scikit-learn, restored by filling their __dict__ with parts that are each checked.
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._bunch.Bunch",
    # Which keyword goes to which method: names only.
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
    # Selects columns by pattern or type: holds a text or type names.
    "sklearn.compose._column_transformer.make_column_selector",
    # Kernels of Gaussian processes: parameters only, evaluated by their own class.
    *(
        f"sklearn.gaussian_process.kernels.{name}"
        for name in (
            "CompoundKernel", "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Hyperparameter",
            "Matern", "PairwiseKernel", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel",
        )
    ),
    # Splitters and scorers of a search: settings only; they act in fit and score.
    *(
        f"sklearn.model_selection._split.{name}"
        for name in (
            "GroupKFold", "GroupShuffleSplit", "KFold", "LeaveOneGroupOut", "LeaveOneOut", "LeavePGroupsOut",
            "LeavePOut", "PredefinedSplit", "RepeatedKFold", "RepeatedStratifiedKFold", "ShuffleSplit",
            "StratifiedGroupKFold", "StratifiedKFold", "StratifiedShuffleSplit", "TimeSeriesSplit",
        )
    ),
    "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV",
    "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV",
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._MultimetricScorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    # Losses: parameters of a formula, beside those that skops trusts itself.
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn._loss.loss.PinballLoss",
    # Piecewise polynomials and sparse matrices: arrays, restored by filling __dict__.
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._bsplines._BSpline",  # its base from scipy 1.18 on
    "scipy.interpolate._interpolate.interp1d",
    "scipy.sparse._csr.csr_matrix",
    "scipy.sparse._csc.csc_matrix",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csc.csc_array",
    # The description of an array's element type.
    "numpy.dtype",
}  # fmt: skip

_FUNCTIONS: Final = {
    # Functions that a model refers to by name, called with data in fit, transform or score. Pure arithmetic, all of
    # them: none opens a file, imports, evaluates text or starts a process.
    *(f"numpy.{name}" for name in ("mean", "median", "max", "min", "amax", "amin", "sum", "std", "var", "abs")),
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    *(
        f"sklearn.feature_selection._univariate_selection.{name}"
        for name in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
    ),
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    "sklearn.cluster._kmeans._kmeans_single_elkan",
    *(
        f"sklearn.metrics._classification.{name}"
        for name in (
            "accuracy_score", "balanced_accuracy_score", "brier_score_loss", "cohen_kappa_score", "f1_score",
            "fbeta_score", "hamming_loss", "jaccard_score", "log_loss", "matthews_corrcoef", "precision_score",
            "recall_score", "zero_one_loss",
        )
    ),
    *(
        f"sklearn.metrics._ranking.{name}"
        for name in ("average_precision_score", "dcg_score", "ndcg_score", "roc_auc_score", "top_k_accuracy_score")
    ),
    *(
        f"sklearn.metrics._regression.{name}"
        for name in (
            "explained_variance_score", "max_error", "mean_absolute_error", "mean_absolute_percentage_error",
            "mean_gamma_deviance", "mean_pinball_loss", "mean_poisson_deviance", "mean_squared_error",
            "mean_squared_log_error", "median_absolute_error", "r2_score", "root_mean_squared_error",
        )
    ),
}  # fmt: skip

REVIEWED: Final[frozenset[str]] = frozenset(_COMPILED | _PLAIN | _FUNCTIONS)
"""Exact names of types and functions that skops calls untrusted and that a model *dumped by us* may hold.

Reviewed one by one; tests dump every estimator of the installed scikit-learn and fail where a name is missing.
"""


# -- skops -----------------------------------------------------------------------------------------------------------


def dump_skops(model: object, *, trust: Iterable[str] = ()) -> bytes:
    """Write a model in skops' format.

    Parameters
    ----------
    trust
        Exact names of further types that whoever loads it will have to trust too.

    Raises
    ------
    FormatRefused
        skops can not write it, or could not load it again without trusting types that nobody has reviewed.
    """
    import skops.io
    from skops.io.exceptions import UnsupportedTypeException

    try:
        data: bytes = skops.io.dumps(model)
        untrusted = set(skops.io.get_untrusted_types(data=data))
    except (UnsupportedTypeException, TypeError, ValueError, AttributeError, ImportError, RecursionError) as error:
        raise FormatRefused(
            f"a {_class(model)} can not be kept in the skops format", cause=str(error)[:300], next=_OTHERWISE
        ) from error
    refused = sorted(untrusted - REVIEWED - set(trust))
    if refused:
        raise FormatRefused(
            f"a {_class(model)} can not be kept safely", cause=f"it holds what nobody has reviewed: {_some(refused)}",
            next="Put your own classes and functions into an installed module and name them "
            f"(trust=[{refused[0]!r}]); or " + _OTHERWISE[0].lower() + _OTHERWISE[1:],
        )  # fmt: skip
    return data


_OTHERWISE: Final = (
    "Keep it in its library's own format (save it to a file and register that), or, as a pickle, which runs code when "
    "it is loaded: --format pickle"
)


def load_skops(data: bytes, *, ours: bool, trust: Iterable[str] = ()) -> object:
    """Read a model in skops' format.

    Parameters
    ----------
    ours
        Whether we dumped these very bytes: then the reviewed list applies, else only skops' own trust.
    trust
        Exact names of further types to trust.

    Raises
    ------
    LoadRefused
        The bytes hold types that are not trusted.
    ModelDamaged
        They are no skops archive.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    _check_archive(data)
    allowed = sorted({*trust, *(REVIEWED if ours else ())})
    try:
        untrusted = set(skops.io.get_untrusted_types(data=data)) - set(allowed)
        if not untrusted:
            loaded: object = skops.io.loads(data, trusted=allowed)
            return loaded
    except UntrustedTypesFoundException as error:
        raise LoadRefused("the model holds types that are not trusted", cause=str(error)[:300]) from error
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, RecursionError) as error:
        raise ModelDamaged("the skops archive can not be read", cause=str(error)[:300]) from error
    names = sorted(untrusted)
    raise LoadRefused(
        "the model holds types that are not trusted" + ("" if ours else " in a file from elsewhere"),
        cause=_some(names),
        next=f"if you know where it comes from: trust={names[:3]!r}",
    )


_LARGEST_MEMBER: Final = 1 << 36


def _check_archive(data: bytes) -> None:
    """Refuse what is no zip of plainly named parts of plausible size, before skops reads any of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [one.filename for one in archive.infolist()]
            size = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelDamaged("the model is no skops archive", cause=str(error)[:200]) from error
    if "schema.json" not in names or len(set(names)) != len(names):
        raise ModelDamaged("the model is no skops archive", cause="its parts are not those of one")
    if size > max(100 * len(data), 1 << 26) or size > _LARGEST_MEMBER:
        raise ModelDamaged("the skops archive is refused", cause=f"it would unpack to {size:,} bytes")


# -- pickle, on demand -----------------------------------------------------------------------------------------------


def dump_pickle(model: object) -> bytes:
    """Write a model as a pickle: a program that makes it again.

    Raises
    ------
    FormatRefused
        It can not be pickled.
    """
    import pickle

    try:
        return pickle.dumps(model, protocol=5)
    except Exception as error:
        raise FormatRefused(f"a {_class(model)} can not be pickled", cause=str(error)[:300]) from error


def load_pickle(data: bytes, format: str) -> object:
    """Run a pickle. The caller has been told that it is one, and has said to trust it."""
    if format == "joblib":
        import joblib

        loaded: object = joblib.load(io.BytesIO(data))
        return loaded
    import pickle

    return pickle.loads(data)  # noqa: S301 - only on explicit demand: see LocalRegistry.load


# -- other libraries' own formats ------------------------------------------------------------------------------------


def _load_onnx(data: bytes) -> object:
    return door("onnxruntime", "onnx").InferenceSession(data, providers=["CPUExecutionProvider"])


def _load_safetensors(data: bytes) -> object:
    door("safetensors", "torch")
    from safetensors.numpy import load  # type: ignore[import-not-found,unused-ignore]

    loaded: object = load(data)
    return loaded


def _text_like(head: bytes) -> bool:
    return b"\0" not in head and not head.startswith(b"\x80")


def _safetensors_like(head: bytes) -> bool:
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= 100_000_000 and head[8:9] == b"{"


BUILT_IN: Final[Mapping[str, Format]] = {
    one.name: one
    for one in (
        Format(name="onnx", suffixes=(".onnx",), load=_load_onnx, looks=lambda head: head[:1] == b"\x08"),
        Format(name="safetensors", suffixes=(".safetensors",), load=_load_safetensors, looks=_safetensors_like),
        Format(name="json", suffixes=(".json",), looks=lambda head: _text_like(head) and head.lstrip()[:1] in b"{["),
        Format(name="text", suffixes=(".txt",), looks=_text_like),
        Format(name="ubj", suffixes=(".ubj",), looks=lambda head: head[:1] in b"{["),
        Format(name=FOREIGN_SKOPS, suffixes=(".skops",), looks=lambda head: head[:2] == b"PK"),
    )
}
"""Formats of files that are kept as they are."""
_PICKLES: Final[Mapping[str, str]] = {
    ".pkl": "pickle", ".pickle": "pickle", ".p": "pickle", ".joblib": "joblib", ".dill": "pickle", ".pt": "pickle",
    ".pth": "pickle", ".ckpt": "pickle",
}  # fmt: skip


def formats() -> dict[str, Format]:
    """All formats of files, those of installed providers included; loaded when asked for."""
    from importlib.metadata import entry_points

    found = dict(BUILT_IN)
    for point in entry_points(group="jupyter_mlops.formats"):
        if point.name not in found and point.name not in {*RUNS_CODE, OWN_SKOPS}:
            provided = point.load()
            found[point.name] = provided if isinstance(provided, Format) else provided()
    return found


def format_of_file(path: Path, asked: str | None) -> str:
    """The format to register a file under.

    Raises
    ------
    WrongUse
        Nobody says what it is.
    FormatRefused
        It is a pickle and that was not asked for, or is not what its name says.
    """
    suffix = path.suffix.lower()
    head = _head(path)
    if asked == "pickle":
        return _PICKLES.get(suffix, "pickle")
    if suffix in _PICKLES or _is_pickle(head):
        raise FormatRefused(
            f"{path.name} is a pickle", cause="loading it would run whatever code is in it",
            next="save the model in a safe format, or register it with --format pickle",
        )  # fmt: skip
    known = formats()
    if asked == OWN_SKOPS:
        asked = FOREIGN_SKOPS
    name = asked or next((one.name for one in known.values() if suffix in one.suffixes), None)
    if name not in known:
        raise WrongUse(
            f"nobody knows the format of {path.name}",
            next=f"--format one of {', '.join(sorted(known))}, or a suffix of "
            + ", ".join(sorted(end for one in known.values() for end in one.suffixes)),
        )
    if not known[name].looks(head):
        raise FormatRefused(f"{path.name} is not what its name says", cause=f"it does not begin as {name} does")
    return name


def format_of_bytes(head: bytes, asked: str | None) -> str:
    """The format to register bytes under, given their beginning; it has to be said.

    Raises
    ------
    WrongUse
        Nobody says what they are.
    FormatRefused
        They are a pickle, or not what was said.
    """
    if asked == "pickle":
        return asked
    if _is_pickle(head):
        raise FormatRefused("these bytes are a pickle", next="register them with format='pickle', if it must be")
    known = formats()
    name = FOREIGN_SKOPS if asked == OWN_SKOPS else asked
    if name not in known:
        raise WrongUse("bytes do not say what they are", next=f"format= one of {', '.join(sorted(known))}")
    if not known[name].looks(head):
        raise FormatRefused(f"these bytes are no {name}", cause="they do not begin as it does")
    return name


def dump(model: object, format: str, *, trust: Iterable[str] = ()) -> bytes:
    """Make bytes of a model, in the format that was asked for and no other.

    Raises
    ------
    WrongUse
        Nobody can write that format.
    FormatRefused
        The model can not be kept in it.
    """
    if format == OWN_SKOPS:
        return dump_skops(model, trust=trust)
    if format == "pickle":
        return dump_pickle(model)
    known = formats().get(format)
    if known is None or known.dump is None:
        raise WrongUse(
            f"nobody here writes {format!r} from a {_class(model)}",
            next="save the model to a file with its own library, and register the file",
        )
    return known.dump(model)


def load(data: bytes, format: str, *, trust: Iterable[str] = ()) -> object:
    """Make a model of bytes that were verified, by the format on their record.

    Raises
    ------
    LoadRefused
        They hold types that are not trusted.
    WrongUse
        Nobody here reads that format.
    """
    if format in RUNS_CODE:
        return load_pickle(data, format)
    if format in (OWN_SKOPS, FOREIGN_SKOPS):
        return load_skops(data, ours=format == OWN_SKOPS, trust=trust)
    known = formats().get(format)
    if known is None or known.load is None:
        raise WrongUse(
            f"nobody here reads {format!r} into a model",
            next="take its bytes with content(…), and read them with the library that wrote them",
        )
    return known.load(data)


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _head(path: Path) -> bytes:
    """A file's first 4 KiB; a thing that is no regular file is refused, and never waited for.

    Raises
    ------
    WrongUse
        There is no such file, or it is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise WrongUse(f"{path.name} can not be read", cause=error.strerror or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise WrongUse(f"{path.name} is no regular file")
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _class(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
