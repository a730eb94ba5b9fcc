"""Settings of an experiment, checked when read: the only place where settings of packages nest."""
