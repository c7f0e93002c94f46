"""What `bench` consists of: the verdict on a speed-up, and what keeps it from being larger."""
