"""Intervals, calibration, labels saved, what more labels would bring."""
