"""SGLang in a child process."""
