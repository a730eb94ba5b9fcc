"""One `fit`: a student, a loss and a list of distillers; validation decides when it ends."""
