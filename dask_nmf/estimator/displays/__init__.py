"""Displays of scikit-learn: figures of a fitted estimator that keep what they draw."""
