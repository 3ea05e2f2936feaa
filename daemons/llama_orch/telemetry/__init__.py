"""What a daemon tells about itself: log records with stable ids, and metrics."""
