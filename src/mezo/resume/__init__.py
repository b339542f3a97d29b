"""Continue a run after it stopped, fork it, replay it, check and publish its trajectory."""
