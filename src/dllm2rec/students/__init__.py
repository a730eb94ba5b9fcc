"""Small sequential encoders: a history becomes a vector, and a vector scores items."""
