"""Pure array functions that compare a prediction with labels."""
