"""Our learner beside what people would use instead; see docs/quality.md."""
