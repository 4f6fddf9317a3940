"""Offline evaluation: data sets as arrays, what is compared, and the report."""
