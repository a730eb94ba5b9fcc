"""What every package shares: errors, identifiers, seeds, files and progress. No torch at import, but for `tensors`."""
