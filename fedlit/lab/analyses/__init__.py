"""What the papers analyse, made of finished runs: one file for each analysis, `writing.py` for what all leave."""
