"""The command line: one thin verb each. Heavy imports happen inside the verb."""
