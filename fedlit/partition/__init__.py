"""Who holds which rows: dealing them to clients, their training and test parts, and how unlike the clients are."""
