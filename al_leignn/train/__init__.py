"""Fitting a committee to labelled frames."""
