"""Rules for the per-sample gradients of each type of layer."""
