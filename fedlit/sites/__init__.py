"""A federation whose sites are real: the local trainer on a site's own rows, and the rule at a centre, with messages
between them that any framework can carry.

`Site` is a client's half, `Center` the server's; `driving.run` shows a whole federation of both in one process. Neither
knows of a framework: an app for one is written by `fedlit export` (`fedlit.sites.apps`).
"""
