"""What `fedlit COMMAND` does: a module each with `main(words)`; the scripts of experiments/ are doors to the same."""
