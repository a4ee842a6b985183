"""The version of rhosight."""

__version__ = "0.1.0"
