"""Small pictures of a run's images, made once and kept in the run: for the page, the report, and what is published."""
