"""Which frames are labelled: arrays in, indices out."""
