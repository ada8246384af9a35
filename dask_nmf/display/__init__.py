"""Lines that show people the progress of a fit, and text that a terminal may show."""
