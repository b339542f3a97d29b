"""The forward of each layer at theta + eps z, without writing theta."""
