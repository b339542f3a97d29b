"""The default engine: a transformers model in this process."""
