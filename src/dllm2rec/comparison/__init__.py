"""Runs, references and teachers on the same examples: tables, paired tests, and what they say in plain words."""
