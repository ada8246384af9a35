"""The sections of a report: facts put into sentences, tables and figures."""
