"""kafka-python's own networking."""
