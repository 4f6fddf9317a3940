"""The baselines, each of them a `Contender`."""
