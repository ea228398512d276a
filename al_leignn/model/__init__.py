"""The network, the committee, and how others use them."""
