"""What a person sees of a fit: lines of progress, and text that a terminal may show."""
