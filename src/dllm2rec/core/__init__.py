"""What every package shares: errors, figures, seeds, files and progress. No torch at import, but for `tensors`."""
