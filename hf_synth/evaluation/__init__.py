"""Scores with intervals, comparisons, calibration, subgroups, baselines."""
