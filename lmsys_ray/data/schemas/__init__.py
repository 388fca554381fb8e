"""The public shapes of preference data: how the records of each become rows of a prompt and two responses."""
