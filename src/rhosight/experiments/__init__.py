"""The paper's tables and figures, made anew: one module for each, and the report of all."""
