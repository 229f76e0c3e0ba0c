"""A warm parent's run in a folder of its own: `in_folder FOLDER MODULE WORD ...` is `python -m MODULE WORD ...`."""

import os
import runpy
import sys

folder, *words = sys.argv[1:]
# `python -m` puts the folder in which it starts first.
sys.path[sys.path.index(os.getcwd())] = folder  # noqa: PTH109  as a text
os.chdir(folder)
sys.argv = ["-m", *words[1:]]
sys.orig_argv = [sys.executable, "-m", *words]
runpy.run_module(words[0], run_name="__main__", alter_sys=True)
