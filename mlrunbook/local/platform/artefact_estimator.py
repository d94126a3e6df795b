"""Whether a classifier that was built from a file may score: its compiled code follows the indices in it without checking one.

Raises `Unsound`, which says what is wrong. Nothing here calls the estimator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOST_TREES = 10_000
MOST_NODES = 2_000_000  # of all trees together: what a request may walk through
MOST_COLUMNS = 10_000  # that an encoder makes of the features
_TREES, _LINEAR = "HistGradientBoostingClassifier", "LogisticRegression"


class Unsound(Exception):
    """The estimator is not what its type says."""


def check(estimator: Any, features: Sequence[str]) -> None:
    """`features` are the columns it will be given. Types were checked by name before anything was built."""
    steps, classifier = _split(estimator)
    width, exact = _check_steps(steps, len(features))
    _array(classifier, "classes_", shape=(2,))
    given = _integer(classifier, "n_features_in_", 1, MOST_COLUMNS)
    if given > width or (exact and given != width):
        raise Unsound(f"it takes {given} features, and is given {width}")
    if type(classifier).__name__ == _TREES:
        _check_trees(classifier, given)
    else:
        _check_weights(classifier, given)


def _split(estimator: Any) -> tuple[Sequence[Any], Any]:
    """The steps before the classifier, and the classifier."""
    steps = [estimator]
    if type(estimator).__name__ == "Pipeline":
        named = getattr(estimator, "steps", None)
        if not isinstance(named, list) or not 0 < len(named) <= 10 or not all(isinstance(s, tuple) and len(s) == 2 for s in named):
            raise Unsound("its pipeline has no steps, or more than 10")
        steps = [step for _, step in named]
    *before, last = steps
    if type(last).__name__ not in (_TREES, _LINEAR):
        raise Unsound(f"it is a {type(last).__name__}, which gives no probabilities; save a classifier")
    return before, last


def _check_steps(steps: Sequence[Any], width: int) -> tuple[int, bool]:
    """How many columns the steps make of `width`, and whether that is exact: an encoder may drop some. Those of a step are multiplied by
    the rows of a request."""
    import numpy as np

    exact = True
    for step in steps:
        kind = type(step).__name__
        if kind == "StandardScaler":
            for name in ("mean_", "scale_"):
                if getattr(step, name, None) is not None and not np.isfinite(_array(step, name, shape=(width,))).all():
                    raise Unsound("its scaler is not finite")
        elif kind == "OneHotEncoder":
            categories = getattr(step, "categories_", None)
            if not isinstance(categories, list) or len(categories) != width or not all(isinstance(c, np.ndarray) for c in categories):
                raise Unsound("its encoder was not fitted on these features")
            width, exact = sum(c.size for c in categories), False
            if width > MOST_COLUMNS:
                raise Unsound(f"its encoder makes more than {MOST_COLUMNS} columns: save a smaller model")
        else:
            raise Unsound(f"its pipeline has a {kind}: scalers and encoders may stand before a classifier")
    return width, exact


def _check_weights(classifier: Any, width: int) -> None:
    import numpy as np

    weights, offset = _array(classifier, "coef_", shape=(1, width)), _array(classifier, "intercept_", shape=(1,))
    if not (np.isfinite(weights).all() and np.isfinite(offset).all()):
        raise Unsound("its weights are not all finite")


def _check_trees(estimator: Any, width: int) -> None:
    import numpy as np

    if _integer(estimator, "n_trees_per_iteration_", 1, 1) and _integer(estimator, "_n_features", 1, MOST_COLUMNS) != width:
        raise Unsound("its trees were grown on another number of features")
    if any(getattr(estimator, name, None) is not None for name in ("is_categorical_", "_preprocessor", "_is_categorical_remapped")):
        raise Unsound("it has categorical features, which are not supported: give them as numbers")
    if _array(getattr(estimator, "_bin_mapper", None), "is_categorical_", shape=(width,)).any():
        raise Unsound("it has categorical features, which are not supported: give them as numbers")
    start = _array(estimator, "_baseline_prediction", shape=(1, 1))
    predictors = getattr(estimator, "_predictors", None)
    if not isinstance(predictors, list) or not 0 < len(predictors) <= MOST_TREES:
        raise Unsound(f"it has no trees, or more than {MOST_TREES}")
    furthest, nodes = float(np.abs(start).max()), 0
    for grown in predictors:
        if not isinstance(grown, list) or len(grown) != 1 or type(grown[0]).__name__ != "TreePredictor":
            raise Unsound("its trees are not one an iteration")
        furthest += check_nodes(grown[0], width)
        nodes += len(grown[0].nodes)
    if not np.isfinite(furthest):
        raise Unsound("its leaves do not add up to a finite score")
    if nodes > MOST_NODES:
        raise Unsound(f"its trees have {nodes} nodes, more than {MOST_NODES}: save a smaller model")


def check_nodes(tree: Any, width: int) -> float:
    """Children come after their parent, as they are written, so that a walk ends; the largest value of a leaf, however it is signed."""
    import numpy as np
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = getattr(tree, "nodes", None)
    if not isinstance(nodes, np.ndarray) or nodes.dtype != np.dtype(PREDICTOR_RECORD_DTYPE) or nodes.ndim != 1 or not len(nodes):
        raise Unsound("the nodes of a tree are not what scikit-learn writes")
    if nodes["is_categorical"].any():
        raise Unsound("a tree splits by category, which is not supported: give categories as numbers")
    inner = nodes["is_leaf"] == 0
    at, splits = np.flatnonzero(inner), nodes[inner]
    for side in ("left", "right"):
        if not ((splits[side] > at) & (splits[side] < len(nodes))).all():
            raise Unsound(f"a tree has a node whose {side} child is not in the tree, or leads back")
    if not ((splits["feature_idx"] >= 0) & (splits["feature_idx"] < width)).all():
        raise Unsound(f"a tree asks for a feature beyond its {width}")
    if np.isnan(splits["num_threshold"]).any():
        raise Unsound("a tree splits at NaN")
    leaves = nodes["value"][~inner]
    if not len(leaves) or not np.isfinite(leaves).all():
        raise Unsound("the leaves of a tree are not all finite")
    return float(np.abs(leaves).max())


def _array(of: Any, name: str, *, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    value = getattr(of, name, None)
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in "biuf":
        raise Unsound(f"its {name} is no array of numbers of the shape {shape}")
    return value


def _integer(of: Any, name: str, least: int, most: int) -> int:
    value = getattr(of, name, None)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Unsound(f"its {name} is no number from {least} to {most}")
    return value
