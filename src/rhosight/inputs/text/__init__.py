"""Descriptions of crystals in words."""
