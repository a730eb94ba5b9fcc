"""Prepare, teach, search, train, evaluate and update: the verbs that make datasets, knowledge and runs."""
