"""Parts from outside the package: what each kind must offer, where they are found, and what a run keeps of them."""
