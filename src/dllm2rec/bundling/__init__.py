"""From a run, or from a baseline, to a bundle that serves, and what is done with one."""
