"""The RUN folder and its files."""
