"""Figures and tables of the paper, one module each, and their catalogue."""
