"""What a table of scores over methods, draws of the partition and seeds allows one to say; plain arrays in, numbers out."""
