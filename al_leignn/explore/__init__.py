"""Where frames come from: seeds from the structure, and MD driven by the committee."""
