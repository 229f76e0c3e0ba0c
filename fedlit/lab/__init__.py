"""What looks at rounds and results, and never the other way round."""
