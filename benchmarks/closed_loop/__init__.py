"""What freshness is worth to viewers who are shown what was recommended."""
