"""Two thin runners over one planner: local processes, or a FireWorks queue."""
