"""What is shown of a comparison: the report, the summary, and the tables of the paper."""
