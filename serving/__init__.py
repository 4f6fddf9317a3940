"""Ranking, snapshots, reader, gateway, page, metrics."""
