"""Training: the Lightning module, losses, optimisers, callbacks, and the fit of a network to a fold."""
