"""The facts of a fit that a report needs, measured in bounded memory, and their wording."""
