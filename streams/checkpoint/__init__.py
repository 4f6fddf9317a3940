"""Checkpoints, journal and epochs: what makes learned state durable. Knows no Kafka and no learner."""
