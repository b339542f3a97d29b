"""Where the model runs. One file an engine; heavy imports only inside it."""
