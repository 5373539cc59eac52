"""What a worker does all the time: fetch and finish, run, keep its locks, take back stalled jobs."""
