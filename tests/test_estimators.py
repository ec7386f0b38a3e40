"""The estimators as scikit-learn expects them to be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from shoal.cluster import GraphClustering, LearnedClustering, SphericalKMeans
from shoal.cluster.heads.objectives import OBJECTIVES


@parametrize_with_checks(
    [SphericalKMeans(n_clusters=3, n_init=2), GraphClustering(n_clusters=3), LearnedClustering(n_clusters=3, n_heads=2)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_lengths_of_rows_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((60, 5))
    lengths = np.exp(generator.standard_normal((60, 1)) * 3)
    one = SphericalKMeans(4, random_state=0).fit(rows)
    other = SphericalKMeans(4, random_state=0).fit(rows * lengths)
    assert np.array_equal(one.labels_, other.labels_)


@pytest.mark.parametrize("change", [{"n_clusters": 0}, {"n_clusters": 2.5}, {"n_init": 0}, {"max_iter": 0}])
def test_parameters_out_of_range_are_named(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        SphericalKMeans(**change).fit(np.eye(4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        *((SphericalKMeans(), method) for method in ("predict", "transform", "score")),
        *((GraphClustering(), method) for method in ("predict", "predict_proba")),
        *((LearnedClustering(), method) for method in ("predict", "predict_proba")),
    ],
)
def test_what_needs_a_fit_says_so_before(estimator: BaseEstimator, method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(estimator, method)(np.eye(9))


def test_names_of_features_that_come_out_need_a_fit() -> None:
    with pytest.raises(NotFittedError):
        SphericalKMeans().get_feature_names_out()


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_learned_clusters_and_their_probabilities(objective: str) -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 100)
    rows = np.maximum(4 * np.eye(3)[truth] @ generator.random((3, 20)) + 0.5 * generator.standard_normal((300, 20)), 0)
    model = LearnedClustering(3, objective=objective, n_heads=4, random_state=0).fit(rows)
    assert adjusted_rand_score(truth, model.labels_) > 0.8
    found = model.predict_proba(rows)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argmax(axis=1), model.predict(rows))
    np.testing.assert_array_equal(model.predict(rows), model.labels_)
    assert 0 < model.agreement_ <= 1


@pytest.mark.parametrize("change", [{"n_clusters": 0}, {"n_heads": 1}, {"n_heads": 2.5}, {"objective": "iic"}])
def test_parameters_of_learned_clusters_are_named(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        LearnedClustering(**change).fit(np.random.default_rng(0).random((9, 4)))  # type: ignore[arg-type]
