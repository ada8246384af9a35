"""What one read of a block tells: measures, a sample of rows, a digest."""
