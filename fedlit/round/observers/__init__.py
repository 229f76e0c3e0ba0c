"""What watches a round: numbers for the record, never needed for the result."""
