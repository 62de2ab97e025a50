"""skops, the format for scikit-learn: written by us, read by its own trust or, for what we wrote, a reviewed list."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from typing import Final

from jupyter_mlops.errors import MlopsError


class FormatRefused(MlopsError, TypeError):
    """A model can not be kept in the safe format that was asked for."""

    exit_code = 1


class LoadRefused(MlopsError, PermissionError):
    """Loading these bytes would trust somebody who was not said to be trusted."""

    exit_code = 1


class ModelDamaged(MlopsError, ValueError):
    """A model's bytes do not have the form that their format has."""


def class_of(model: object) -> str:
    """The full name of a model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


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
    "sklearn.compose._column_transformer._RemainderColsList",  # a list that warns, as of 1.6
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
    except (UnsupportedTypeException, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise FormatRefused(
            f"a {class_of(model)} can not be kept in the skops format", cause=str(error)[:300], next=_otherwise(model)
        ) from error
    refused = sorted(untrusted - REVIEWED - set(trust))
    if refused:
        raise FormatRefused(
            f"a {class_of(model)} can not be kept safely", cause=f"it holds what nobody has reviewed: {_some(refused)}",
            next=_advice(model, refused, sorted({*refused, *trust})),
        )  # fmt: skip
    return data


def _advice(model: object, refused: list[str], named: list[str]) -> str:
    """What to do about types and functions that nobody has reviewed."""
    if any("<lambda>" in name or "<locals>" in name for name in refused):
        return (
            "A lambda, or a function inside a function, can not be found again by its name: write it as a function of "
            "its own in a .py file, import it from there, and fit again"
        )
    if any(name.startswith("__main__.") for name in refused):
        return (
            "What is written in a notebook is not there where the model is loaded: move it to a .py file, import it "
            "from there, fit again, and register with --trust and its full name"
        )
    foreign = [name for name in refused if name.partition(".")[0] == class_of(model).partition(".")[0]]
    if any(class_of(model).startswith(library) for library in _HINTS) and foreign:
        return _otherwise(model)
    words = " ".join(f"--trust {name}" for name in named[:6])
    return (
        f"If these are your own, or you know them, name them here and when it is loaded: {words}. {_otherwise(model)}"
    )


_HINTS: Final = {
    "lightgbm.": "Register its booster, model.booster_",
    "xgboost.": "Register its booster, model.get_booster()",
    "torch.": "Register its tensors: --format safetensors",
    "onnx.": "Register the whole ModelProto",
}


def _otherwise(model: object) -> str:
    own = next((hint for library, hint in _HINTS.items() if class_of(model).startswith(library)), None)
    if own is None and any(f"{one.__module__}." == "torch.nn.modules.module." for one in type(model).__mro__):
        own = _HINTS["torch."]
    return f"{own or _OWN_FORMAT}; or, as a pickle, which runs code when it is loaded: --format pickle"


_OWN_FORMAT: Final = "Keep it in its library's own format (save it to a file and register that)"


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
        next=f"if you know where it comes from: load_model(…, trust={names!r})",
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


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
