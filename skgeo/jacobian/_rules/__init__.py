"""What each type of layer knows about its own per-sample gradients."""
