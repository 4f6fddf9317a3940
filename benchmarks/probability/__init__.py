"""Probabilities beside what people would use instead."""
