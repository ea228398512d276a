"""A campaign on disk: layout, state, plan, and the stages."""
