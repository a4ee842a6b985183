"""Cross-validation, statistics, coverage of intervals, and reports."""
