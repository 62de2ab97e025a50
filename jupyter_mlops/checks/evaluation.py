"""Holds predictions against the truth: metrics of the rows themselves, and how sure a difference between two models is.

A metric here is a function of *row weights*. Each is prepared once from truth and answer (what can be sorted or
compared is sorted and compared there); a resample of the rows is then nothing but another vector of counts, so a
thousand resamples of a ranking cost a thousand cumulative sums and not a thousand sorts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError

HIGHER: Final = frozenset(
    {
        "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "roc_auc", "average_precision", "r2",
        "pr_auc", "specificity", "mcc", "kappa", "ndcg", "map", "hit_rate", "silhouette", "jaccard", "iou", "dice",
        "explained_variance",
    }
)  # fmt: skip
"""Metrics of which more is better."""
LOWER: Final = frozenset(
    {
        "rmse", "mse", "mae", "mape", "smape", "rmsle", "msle", "log_loss", "brier", "loss", "error", "error_rate",
        "max_error", "pinball_loss", "perplexity", "latency", "ece",
    }
)  # fmt: skip
"""Metrics of which less is better."""

Weights = Any
Statistic = Callable[[Weights], float]
_MOST_CLASSES: Final = 50


class EvaluationInvalid(MlopsError, ValueError):
    """Truth and answers do not fit together."""

    exit_code = 2


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was true of each row, and what a model said.

    Attributes
    ----------
    truth
        One value per row.
    prediction
        The answer per row, or None where only scores are known.
    score
        Per row the score of the greater class (two classes), or one column per class; None where only answers are.
    task
        ``binary``, ``multiclass`` or ``regression``.
    classes
        The classes in sorted order; empty for a regression.
    rows
        A digest of the truth: two evaluations that share it speak of the same rows in the same order.
    """

    truth: Any
    prediction: Any = None
    score: Any = None
    task: str
    classes: tuple[Any, ...] = ()
    rows: str = ""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A paired bootstrap interval of a difference.

    Attributes
    ----------
    difference
        Of the two metrics on all rows, positive where the challenger is better.
    low, high
        Percentiles of that difference over the resamples.
    """

    difference: float
    low: float
    high: float
    level: float
    resamples: int
    rows: int
    seed: int


def direction(metric: str) -> int:
    """1 where more of a metric is better, -1 where less is, 0 where its name does not say.

    >>> direction("test/roc_auc"), direction("rmse"), direction("revenue")
    (1, -1, 0)
    """
    name = metric.lower().replace("-", "_")
    for part in (name, name.rpartition("/")[2], name.rpartition(".")[2], *_without_prefix(name)):
        if part in HIGHER:
            return 1
        if part in LOWER:
            return -1
    return 0


def _without_prefix(name: str) -> list[str]:
    head, _, tail = name.partition("_")
    return [tail] if head in {"test", "val", "valid", "validation", "train", "cv", "mean"} else []


def canonical(metric: str) -> str:
    """The name a metric is computed under: ``roc_auc`` is ``auc``."""
    return "auc" if metric == "roc_auc" else metric


# -- from arrays -----------------------------------------------------------------------------------------------------


def vector(values: Any) -> Any:
    """A column of any library as a numpy array of numbers, flags or text.

    Raises
    ------
    EvaluationInvalid
        It has missing values, or more than two dimensions.
    """
    import numpy as np

    array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if array.dtype == object:
        flat = array.ravel().tolist()
        if all(type(one) in (bool, np.bool_) for one in flat):
            array = array.astype(bool)
        elif all(isinstance(one, (int, float, np.number)) for one in flat):
            array = array.astype(float)
        elif any(one is None or one != one for one in flat):
            raise EvaluationInvalid("an evaluation has missing values")
        else:
            array = array.astype(str)
    elif array.dtype.kind not in "biufU":
        array = array.astype(str)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise EvaluationInvalid("an evaluation has missing or infinite values")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise EvaluationInvalid(f"an evaluation has {array.ndim} dimensions", cause="one value per row is needed")
    return array


def evaluation(truth: Any, *answers: Any, task: str | None = None, rows: str = "") -> Evaluation:
    """Put truth and answers together, telling answers from scores.

    Parameters
    ----------
    truth
        One value per row.
    answers
        Predicted values, scores or probabilities (of the greater class, or one column per class), in any order.
    task
        ``binary``, ``multiclass`` or ``regression``; told from the values unless given.

    Raises
    ------
    EvaluationInvalid
        Lengths differ, values are missing, or scores do not fit the classes.

    >>> evaluation([0, 1, 1], [0.2, 0.9, 0.4]).task
    'binary'
    >>> evaluation([1.5, 2.0], [1.4, 2.2]).task
    'regression'
    """
    import numpy as np

    truth = vector(truth)
    given = [vector(answer) for answer in answers]
    if truth.ndim != 1 or not len(truth):
        raise EvaluationInvalid("the truth of an evaluation is one value per row, for at least one row")
    for answer in given:
        if len(answer) != len(truth):
            raise EvaluationInvalid(f"there are {len(truth):,} true values and {len(answer):,} answers")
    if not given:
        raise EvaluationInvalid("an evaluation needs answers beside the truth", next="evaluation=(y_true, y_pred)")
    classes = np.unique(truth)
    task = task or _task(truth, classes, given)
    if task == "regression":
        if given[0].ndim != 1 or given[0].dtype.kind == "U" or truth.dtype.kind == "U":
            raise EvaluationInvalid("a regression is evaluated by one number per row")
        return Evaluation(truth=truth, prediction=given[0], task=task, rows=rows)
    prediction, score = None, None
    for answer in given:
        if answer.ndim == 2:
            if answer.shape[1] != len(classes):
                raise EvaluationInvalid(f"there are {len(classes)} classes and {answer.shape[1]} columns of scores")
            score = answer[:, 1] if len(classes) == 2 else answer
        elif _labels(answer, classes):
            prediction = answer
        elif len(classes) == 2 and answer.dtype.kind in "fiu":
            score = answer
        else:
            prediction = answer
    if prediction is None and score is not None:
        prediction = _decide(score, classes)
    return Evaluation(
        truth=truth, prediction=prediction, score=score, task=task, classes=tuple(classes.tolist()), rows=rows
    )


def _labels(answer: Any, classes: Any) -> bool:
    import numpy as np

    if (answer.dtype.kind == "U") != (classes.dtype.kind == "U"):
        return bool(answer.dtype.kind == "U")
    return bool(np.isin(answer, classes).all())


def _task(truth: Any, classes: Any, given: list[Any]) -> str:
    if truth.dtype.kind in "bU":
        return "binary" if len(classes) <= 2 else "multiclass"
    whole = truth.dtype.kind in "iu" or bool((truth == truth.astype("int64")).all())
    if whole and len(classes) <= 2:
        return "binary"
    if whole and len(classes) <= _MOST_CLASSES and all(one.ndim == 2 or _labels(one, classes) for one in given):
        return "multiclass"
    return "regression"


def _decide(score: Any, classes: Any) -> Any:
    """What a score means as an answer; none for a score that is no probability, whose threshold nobody knows."""
    if score.ndim == 2:
        return classes[score.argmax(axis=1)]
    if len(classes) == 2 and score.min() >= 0 and score.max() <= 1:
        return classes[(score >= 0.5).astype(int)]
    return None


# -- metrics ---------------------------------------------------------------------------------------------------------


def metrics(of: Evaluation) -> dict[str, float]:
    """All metrics that the rows allow, recomputed from them; one that is undefined for them is left out."""
    import numpy as np

    ones = np.ones(len(of.truth))
    found = {}
    for name in _REGRESSION if of.task == "regression" else _CLASSIFICATION:
        prepared = statistic(name, of)
        value = prepared(ones) if prepared else math.nan
        if math.isfinite(value):
            found[name] = value
    return found


def statistic(metric: str, of: Evaluation) -> Statistic | None:
    """A metric as a function of row weights, or None where it can not be computed from these rows."""
    table = _REGRESSION if of.task == "regression" else _CLASSIFICATION
    make = table.get(canonical(metric))
    return make(of) if make else None


def _mean(contributions: Any) -> Statistic:
    return lambda w: float(w @ contributions) / float(w.sum())


def _squares(of: Evaluation) -> Any:
    return (of.truth.astype(float) - of.prediction.astype(float)) ** 2


def _rmse(of: Evaluation) -> Statistic:
    mean = _mean(_squares(of))
    return lambda w: math.sqrt(mean(w))


def _r2(of: Evaluation) -> Statistic:
    y, squares = of.truth.astype(float), _squares(of)

    def r2(w: Weights) -> float:
        middle = float(w @ y) / float(w.sum())
        total = float(w @ (y - middle) ** 2)
        return 1 - float(w @ squares) / total if total else math.nan

    return r2


def _accuracy(of: Evaluation) -> Statistic | None:
    return None if of.prediction is None else _mean((of.truth == of.prediction).astype(float))


def _rates(of: Evaluation, combine: Callable[[float, float, float], float]) -> Statistic | None:
    """A metric of true positives, false positives, false negatives: of the greater of two classes, else the mean."""
    if of.prediction is None or not of.classes:
        return None
    positive = of.classes[-1:] if of.task == "binary" else of.classes
    masks = [((of.truth == one).astype(float), (of.prediction == one).astype(float)) for one in positive]
    parts = [(true * said, said * (1 - true), true * (1 - said)) for true, said in masks]
    return lambda w: sum(combine(float(w @ a), float(w @ b), float(w @ c)) for a, b, c in parts) / len(parts)


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _balanced(of: Evaluation) -> Statistic | None:
    if of.prediction is None or not of.classes:
        return None
    right = (of.truth == of.prediction).astype(float)
    masks = [(of.truth == one).astype(float) for one in of.classes]

    def balanced(w: Weights) -> float:
        present = [(float(w @ (mask * right)), float(w @ mask)) for mask in masks]
        rates = [hit / total for hit, total in present if total]
        return sum(rates) / len(rates)

    return balanced


def _ranked(of: Evaluation) -> tuple[Any, Any, Any] | None:
    """Rows by ascending score: their order, whether each is positive, where each group of equal scores begins."""
    import numpy as np

    if of.task != "binary" or of.score is None or of.score.ndim != 1 or len(of.classes) != 2:
        return None
    order = np.argsort(of.score, kind="stable")
    ordered = of.score[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    return order, (of.truth == of.classes[1])[order].astype(float), starts


def _auc(of: Evaluation) -> Statistic | None:
    import numpy as np

    ranked = _ranked(of)
    if ranked is None:
        return None
    order, positive, starts = ranked

    def auc(w: Weights) -> float:
        # Mann and Whitney's statistic: a pair of equal scores counts half
        weights = w[order]
        p = np.add.reduceat(weights * positive, starts)
        n = np.add.reduceat(weights * (1 - positive), starts)
        pairs = float(p.sum()) * float(n.sum())
        return float(p @ (np.cumsum(n) - n / 2)) / pairs if pairs else math.nan

    return auc


def _average_precision(of: Evaluation) -> Statistic | None:
    import numpy as np

    ranked = _ranked(of)
    if ranked is None:
        return None
    order, positive, starts = ranked

    def average_precision(w: Weights) -> float:
        weights = w[order]
        p = np.add.reduceat(weights * positive, starts)[::-1]
        every = np.add.reduceat(weights, starts)[::-1]
        hits, said = np.cumsum(p), np.cumsum(every)
        return float((p * hits / np.maximum(said, 1)).sum()) / float(hits[-1]) if hits[-1] else math.nan

    return average_precision


def _probabilities(of: Evaluation) -> Any:
    """The probability given to each row's true class, or None where scores are no probabilities."""
    import numpy as np

    if of.score is None or of.score.dtype.kind not in "fiu" or of.score.min() < 0 or of.score.max() > 1:
        return None
    if of.score.ndim == 2:
        at: Any = np.searchsorted(np.asarray(of.classes), of.truth)
        return of.score[np.arange(len(at)), at]
    return np.where(of.truth == of.classes[-1], of.score, 1 - of.score) if len(of.classes) == 2 else None


def _log_loss(of: Evaluation) -> Statistic | None:
    import numpy as np

    given = _probabilities(of)
    return None if given is None else _mean(-np.log(np.clip(given, np.finfo(float).eps, 1)))


def _brier(of: Evaluation) -> Statistic | None:
    given = _probabilities(of) if of.task == "binary" else None
    return None if given is None else _mean((1 - given) ** 2)


_REGRESSION: Final[Mapping[str, Callable[[Evaluation], Statistic | None]]] = {
    "rmse": _rmse,
    "mae": lambda of: _mean(abs(of.truth.astype(float) - of.prediction.astype(float))),
    "mse": lambda of: _mean(_squares(of)),
    "r2": _r2,
}
_CLASSIFICATION: Final[Mapping[str, Callable[[Evaluation], Statistic | None]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "precision": lambda of: _rates(of, lambda tp, fp, _: _ratio(tp, tp + fp)),
    "recall": lambda of: _rates(of, lambda tp, _, fn: _ratio(tp, tp + fn)),
    "f1": lambda of: _rates(of, lambda tp, fp, fn: _ratio(2 * tp, 2 * tp + fp + fn)),
    "auc": _auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
    "brier": _brier,
}


# -- how sure ---------------------------------------------------------------------------------------------------------


def bootstrap(
    metric: str,
    challenger: Evaluation,
    holder: Evaluation,
    *,
    sign: int = 1,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """How sure it is that one model is better than another on the same rows.

    The rows are drawn anew with replacement, the same draw for both models, and the difference of their metrics is
    noted; the interval holds the middle `level` of these differences (the percentile interval; B. Efron and
    R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It supposes that rows are independent.

    Parameters
    ----------
    sign
        1 where more of the metric is better, -1 where less is.
    resamples
        How many draws; at least 1,000.

    Returns
    -------
    Interval or None
        None where the metric can not be computed from the rows, or not on most resamples of them.
    """
    import numpy as np

    if challenger.rows != holder.rows or len(challenger.truth) != len(holder.truth):
        raise EvaluationInvalid("the two models were evaluated on different rows")
    one, other = statistic(metric, challenger), statistic(metric, holder)
    if one is None or other is None:
        return None
    rows = len(challenger.truth)
    ones = np.ones(rows)
    random = np.random.default_rng(seed)
    resamples = max(resamples, 1000)
    differences = np.empty(resamples)
    for draw in range(resamples):
        weights = np.bincount(random.integers(0, rows, rows), minlength=rows).astype(float)
        differences[draw] = sign * (one(weights) - other(weights))
    differences = differences[np.isfinite(differences)]
    difference = sign * (one(ones) - other(ones))
    if len(differences) < 0.95 * resamples or not math.isfinite(difference):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(
        difference=difference, low=float(low), high=float(high), level=level, resamples=len(differences), rows=rows,
        seed=seed,
    )  # fmt: skip
