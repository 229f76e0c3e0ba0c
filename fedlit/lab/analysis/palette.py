"""The colours of every picture and page.

Those of P. Tol's "muted" scheme ("Colour Schemes", SRON/EPS/TN/09-002) and a blue, in an order whose neighbours differ
in lightness, so that they stay apart in grey and for the colour-blind.
"""

# indigo, rose, green, sand, wine, cyan, purple, olive, blue, teal
PALETTE = ("#332288", "#CC6677", "#117733", "#DDCC77", "#882255", "#88CCEE", "#AA4499", "#999933", "#0077BB", "#44AA99")
INK, MUTED, GRID = "#222222", "#6B6B6B", "#E8E8E8"
