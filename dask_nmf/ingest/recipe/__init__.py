"""The steps from the values of a source to V, fitted in streamed passes and recorded for new rows."""
