"""The tuned tensors, and how an update reaches them."""
