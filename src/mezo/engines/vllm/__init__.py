"""vLLM in a child process."""
