"""Apps of frameworks that carry a federation's messages: `fedlit export RUN --to NAME` writes one.

A target is a module here with a `TARGET`, and a folder of the same name in `templates/`: the files of the app as they
are, with the framework's own code in them. fedlit itself imports no framework.
"""

TARGETS = ("flower", "nvflare")
