"""Contracts: events, items, snapshots, dead letters, topics, settings; bytes to columns."""
