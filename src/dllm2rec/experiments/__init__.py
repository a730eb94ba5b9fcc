"""An experiment: its stages, cached, and its cells, trained one by one or several at once."""
