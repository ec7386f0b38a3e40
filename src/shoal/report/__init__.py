"""What people see of a run: the map, the page, the figures."""
