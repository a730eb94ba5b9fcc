"""How much titles count beside counting: the weight of text neighbours in a blend, chosen on validation."""

TEXT_WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
