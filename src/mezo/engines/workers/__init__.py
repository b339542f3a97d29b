"""theta inside the workers of a serving engine, for tuning all parameters."""
