"""What was said in the threads, and what it took: a second reading of the rollouts."""
