"""Charge densities predicted from structures."""
