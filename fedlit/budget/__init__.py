"""What a sweep will take and what it can show, said before any of its cells runs (`fedlit plan`)."""
