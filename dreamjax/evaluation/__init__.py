"""Judges: how close a result is to the known truth of the toybox."""
