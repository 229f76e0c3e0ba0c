"""What a table of scores over methods, draws of the partition and seeds allows one to say: arrays in, numbers out."""
