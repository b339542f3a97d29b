"""Measurements: ratios within one run, against the work they claim to save."""
