"""What a data set or a model gives away: duplicates, leaks and shortcuts."""
