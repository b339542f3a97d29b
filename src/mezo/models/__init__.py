"""Loading language models, and what a model is beyond its weights."""
