"""Servers that run already, SGLang or vLLM, over HTTP."""
