"""From a config to the objects of a run: model, weights, engine, estimator, optimizer."""
