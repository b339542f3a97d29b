"""Memory modes in which theta itself is moved to each probe and back."""
