"""Figures, tables and one HTML page, from a run's files only."""
