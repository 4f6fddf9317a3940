"""Kafka and Faust: transport, broker, worker, sources, command line."""
