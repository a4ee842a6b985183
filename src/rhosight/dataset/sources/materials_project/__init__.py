"""Read the Materials Project: labels, texts and densities.

Labels and texts come from its API, densities from its open-data bucket.

``source`` selects materials, ``client`` sends requests, ``documents`` interprets the answers.
"""

from .source import SUMMARY_THERMO_TYPE, THERMO_TYPES, MaterialsProject

__all__ = ["SUMMARY_THERMO_TYPE", "THERMO_TYPES", "MaterialsProject"]
