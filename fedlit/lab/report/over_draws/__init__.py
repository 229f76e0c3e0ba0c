"""What a table may claim: differences over draws, shares of the variance, errors over examples; CSV, text, figures."""
