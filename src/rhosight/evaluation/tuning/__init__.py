"""Hyperparameter sweeps with nested folds."""
