"""Gaussian processes over named blocks of features."""
