"""From a run, or from counting, to a bundle that serves, and what is done with one."""
