"""The Materials Project: labels and texts from its API, densities from its open-data bucket.

``source`` decides what is asked for and what becomes of it, ``client`` asks, ``documents`` says
what the answers mean.
"""

from .source import SUMMARY_THERMO_TYPE, THERMO_TYPES, MaterialsProject

__all__ = ["SUMMARY_THERMO_TYPE", "THERMO_TYPES", "MaterialsProject"]
