"""Figures and tables of the paper, one module each; :mod:`.catalogue` looks them up."""
