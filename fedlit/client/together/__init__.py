"""Several clients in one forward pass: one frozen backbone, and each client's rows through the client's own weights."""
