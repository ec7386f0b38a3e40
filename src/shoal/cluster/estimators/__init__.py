"""Clusterings of arrays as scikit-learn estimators."""
