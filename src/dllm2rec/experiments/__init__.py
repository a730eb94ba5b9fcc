"""Settings and their results: the cached pipeline, tables, the doctor's page and the report."""
