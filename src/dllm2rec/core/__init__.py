"""What every room shares: errors, identifiers, seeds, files and progress. No torch at import time, but for `tensors`."""
