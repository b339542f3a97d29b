"""The engine of `mezo.MeZO`: the loss is computed by a closure."""
