"""SphericalKMeans as scikit-learn expects an estimator to be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from shoal.cluster import SphericalKMeans


@parametrize_with_checks([SphericalKMeans(n_clusters=3, n_init=2)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(estimator: SphericalKMeans, check: object) -> None:
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
